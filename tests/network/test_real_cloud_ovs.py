"""The same promises where hosts switch by Open vSwitch in user space: those that rest on the switch."""

from collections.abc import Callable, Iterator

import pytest

from tests.network import test_real_cloud as promised
from tests.network.test_real_cloud import Story, told

pytestmark = promised.pytestmark

test_full_frames = promised.test_guests_on_two_hosts_find_each_other_by_name_and_fill_their_frames
test_closed_group = promised.test_a_group_without_ssh_lets_nobody_in
test_revoked_rule = promised.test_a_revoked_rule_cuts_a_connection_that_stands
test_second_card = promised.test_a_second_card_is_plugged_in_and_finds_its_address
test_killed_process = promised.test_a_killed_process_comes_back_and_finishes_what_it_began
test_stop_and_start = promised.test_a_cloud_that_stops_and_starts_touches_no_guest
test_live_migration = promised.test_a_guest_moves_while_it_runs_and_its_network_goes_with_it


@pytest.fixture(scope="module")
def story(free_port: Callable[[], int]) -> Iterator[Story]:
    with told(free_port(), driver="ovs") as story:
        yield story


def test_a_deleted_tap_is_made_anew_and_its_guest_hears_again(story):
    promised.destroyed(story, promised.delete_tap)
