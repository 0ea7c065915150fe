"""`down --guests`: all of them, however many; and as long as they become fewer."""

import re

import pytest

from api.cli import client
from api.cli.down import SPEAK_SECONDS, STILL_SECONDS, Patience
from bus.config import load
from tests.cli.conftest import until

GUESTS = 7


def test_guests_are_waited_for_as_long_as_they_become_fewer():
    patience = Patience(3, now=0.0)
    assert not patience.ends(3, STILL_SECONDS - 1)
    assert not patience.ends(2, STILL_SECONDS + 1)
    assert not patience.ends(2, 2 * STILL_SECONDS)
    assert not patience.ends(1, 2.5 * STILL_SECONDS)
    assert patience.ends(1, 3.6 * STILL_SECONDS)
    assert not patience.ends(0, 9 * STILL_SECONDS)


def test_guests_that_start_meanwhile_are_no_progress():
    patience = Patience(2, now=0.0)
    assert not patience.ends(5, 10.0)
    assert patience.ends(4, STILL_SECONDS + 1)


def test_how_many_are_left_is_said_now_and_then():
    patience = Patience(9, now=0.0)
    said = [second for second in range(int(3 * SPEAK_SECONDS)) if patience.speaks(second)]
    assert said == [SPEAK_SECONDS, 2 * SPEAK_SECONDS]


@pytest.mark.live
@pytest.mark.slow
def test_guests_on_every_page_of_the_list_are_shut_down(person):
    person.environment["CUMULOG_PAGE_LIMIT"] = "3"
    person.up("--hosts", "2")
    api = client.login(load(person.environment, listen=person.listen))
    [image] = api.get("image", "/v2/images")["images"]
    server = {"name": "guest", "imageRef": image["id"], "flavorRef": "1", "networks": "none"}
    order = {"server": server | {"min_count": GUESTS, "max_count": GUESTS}}
    api.post("compute", "/servers", order, OpenStack_API_Version="compute 2.90")
    until(lambda: not api.get("compute", "/servers?status=BUILD")["servers"])
    done = person.types("down", "--guests")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{GUESTS} guests off" in done.stdout
    stopped = person.types("events", "server", "-t", "ServerStopped", "--json").stdout
    assert len(set(re.findall(r'"stream":"(server/[^"]+)"', stopped))) == GUESTS
