"""Scheduler hints at the door: Nova's are checked in its words, others are kept as texts."""

import pytest

from api.compute.server_hints import QUESTION, hints_of
from schema.refusal import Invalid
from tests.compute.world import GONE, wanted

QUERY = '[">=", "$free_ram_mb", 1024]'


@pytest.mark.parametrize(
    "given,kept",
    [
        ({}, {}),
        ({"group": GONE}, {"group": [GONE]}),
        ({"same_host": GONE, "different_host": [GONE, GONE]}, {"same_host": [GONE], "different_host": [GONE, GONE]}),
        ({"query": QUERY}, {"query": [QUERY]}),
        ({"query": {"a": 1}}, {"query": ['{"a":1}']}),
        ({"query": "", "same_host": []}, {}),
        ({"build_near_host_ip": "10.0.0.1", "cidr": "/24"}, {"build_near_host_ip": ["10.0.0.1"], "cidr": ["/24"]}),
        ({"build_near_host_ip": "fd00::1", "cidr": "/64"}, {"build_near_host_ip": ["fd00::1"], "cidr": ["/64"]}),
        ({"target_cell": "east", "different_cell": ["west"]}, {"target_cell": ["east"], "different_cell": ["west"]}),
        ({"reservation": GONE, "none": None}, {"reservation": [GONE]}),
        ({"mine": [1, {"a": None}]}, {"mine": ["1", '{"a":null}']}),
        ({"long": "x" * 999}, {"long": ["x" * 255]}),
    ],
)
def test_hints_are_lists_of_texts(given, kept):
    assert hints_of(given) == kept


@pytest.mark.parametrize(
    "given,words",
    [
        ({"group": "mine"}, "Invalid input for field/attribute group. Value: mine. 'mine' is not a 'uuid'"),
        ({"group": 5}, "Value: 5. 5 is not of type 'string'"),
        ({"group": [GONE]}, "is not of type 'string'"),
        ({"same_host": [GONE, "web"]}, "field/attribute same_host. Value: web. 'web' is not a 'uuid'"),
        ({"different_host": ""}, "'' is not a 'uuid'"),
        ({"query": [">=", "$free_ram_mb", 1]}, "is not of type 'string', 'object'"),
        ({"query": "x" * (QUESTION + 1)}, "longer than 4096 letters"),
        ({"build_near_host_ip": "near"}, "'near' is not valid under any of the given schemas"),
        ({"cidr": "24"}, "field/attribute cidr. Value: 24. '24' does not match '^/[0-9a-f.:]+$'"),
        ({"target_cell": ""}, "'' is too short"),
        ({"different_cell": [1]}, "1 is not of type 'string'"),
    ],
)
def test_what_nova_would_not_take_is_refused(given, words):
    with pytest.raises(Invalid) as refused:
        hints_of(given)
    assert words in str(refused.value)


async def test_a_server_is_not_ordered_with_a_hint_that_says_nothing(world):
    member = await world.client()
    for name in ("os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"):
        answer = await member("POST", "/servers", {"server": wanted(member), name: {"cidr": "near"}}, expect=400)
        assert "field/attribute cidr" in answer["badRequest"]["message"]
    hints = {"reservation": GONE, "target_cell": "east"}
    made = await member("POST", "/servers", {"server": wanted(member), "os:scheduler_hints": hints}, expect=202)
    shown = await world.becomes(member, made["server"]["id"], "ACTIVE")
    assert shown["scheduler_hints"] == {"reservation": [GONE], "target_cell": ["east"]}
