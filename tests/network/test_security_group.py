"""Security groups: what is in them, which may go, and that each project has one default group."""

import asyncio

import pytest

from bus import clock
from bus.cloud import open_cloud
from bus.execute import StillHeld, Wish
from handlers.network.default_group import default_group, ensure_default_group
from handlers.network.default_rule import DEFAULT_RULE_TEMPLATE
from handlers.network.ending import group_ended
from handlers.network.port import PORTS
from handlers.network.router import Outdated
from handlers.network.security_group import SECURITY_GROUPS, standing
from schema.network.default_rule import STANDARD, AddDefaultRule, DefaultRule, DefaultRuleAdded, RemoveDefaultRule
from schema.network.port_command import CreatePort, UpdatePort
from schema.network.quota import NETWORK_USAGE
from schema.network.security_group import (
    SECURITY_GROUP,
    AddSecurityRules,
    CreateSecurityGroup,
    DeleteSecurityGroup,
    RemoveSecurityRule,
    SecurityGroupCreated,
    SecurityGroupDeleted,
    SecurityGroupShared,
    SecurityGroupUnshared,
    SecurityGroupUpdated,
    SecurityRule,
    SecurityRuleRemoved,
    SecurityRulesAdded,
    ShareSecurityGroup,
    UnshareSecurityGroup,
    UpdateSecurityGroup,
)
from schema.refusal import Conflict, NotFound
from tests.story import Story

groups = Story(SECURITY_GROUPS)
template = Story(DEFAULT_RULE_TEMPLATE, "all")
ssh = SecurityRule(id="1", direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22)
ping = SecurityRule(id="2", direction="ingress", protocol="icmp")
created = SecurityGroupCreated(name="web", project_id="p", rules=(ssh,))
default = SecurityGroupCreated(name="default", project_id="p")


def test_a_group_is_made_with_its_rules():
    groups.given().when(CreateSecurityGroup(name="web", project_id="p", rules=(ssh,))).then(created)


def test_rules_come_and_go():
    after = groups.given(created).when(AddSecurityRules(rules=(ping,))).then(SecurityRulesAdded(rules=(ping,)))
    assert [rule.id for rule in after.state.rules] == ["1", "2"]
    assert all(rule.created_at for rule in after.state.rules)
    after.when(RemoveSecurityRule(rule_id="1")).then(SecurityRuleRemoved(rule_id="1"))


def test_no_two_rules_let_the_same_through():
    again = SecurityRule(id="3", direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22)
    groups.given(created).when(AddSecurityRules(rules=(ping, again))).refused("Rule id is 1", Conflict)


def test_a_group_changes_and_goes():
    groups.given(created).when(UpdateSecurityGroup(description="d")).then(SecurityGroupUpdated(description="d"))
    groups.given(created).when(DeleteSecurityGroup()).then(SecurityGroupDeleted())
    groups.given(created).when(DeleteSecurityGroup(rule_ids=("1", "2"))).then(SecurityGroupDeleted())


def test_a_group_does_not_go_with_rules_that_would_count_for_ever():
    groups.given(created, SecurityRulesAdded(rules=(ping,))).when(DeleteSecurityGroup(rule_ids=("1",))).refused(
        "other rules by now", Outdated
    )


def test_the_default_group_keeps_its_name_and_stays():
    groups.given(default).when(UpdateSecurityGroup(name="other")).refused("Updating default", Conflict)
    groups.given(default).when(DeleteSecurityGroup()).refused("removing default", Conflict)
    groups.given(created).when(UpdateSecurityGroup(name="default")).refused("already exists", Conflict)
    groups.given(default).when(DeleteSecurityGroup(even_default=True)).then(SecurityGroupDeleted())


def test_a_group_is_shared_and_unshared():
    shared = groups.given(created).when(ShareSecurityGroup(project_id="q")).then(SecurityGroupShared(project_id="q"))
    shared.when(UnshareSecurityGroup(project_id="q")).then(SecurityGroupUnshared(project_id="q"))


def test_what_is_gone_cannot_be_changed():
    gone = groups.given(created, SecurityGroupDeleted())
    gone.when(AddSecurityRules(rules=(ping,))).refused("does not exist", NotFound)


def test_the_template_begins_with_four_rules_and_takes_more():
    rule = DefaultRule(id="x", direction="ingress", protocol="icmp")
    after = template.given().when(AddDefaultRule(rule=rule)).then(DefaultRuleAdded(rule=rule))
    assert after.state.rules == (*STANDARD, rule)
    after.when(AddDefaultRule(rule=DefaultRule(id="y", direction="ingress", protocol="icmp"))).refused("exists")
    assert list(DEFAULT_RULE_TEMPLATE.decide(after.state, RemoveDefaultRule(rule_id="unknown"))) == []


@pytest.fixture
async def cloud(settings, fresh_database):
    cloud = await open_cloud(settings, fresh_database)
    yield cloud
    await cloud.close()


async def test_a_project_has_one_default_group_however_many_ask_at_once(cloud):
    ids = await asyncio.gather(*(ensure_default_group(cloud, "p") for _ in range(8)))
    assert len(set(ids)) == 1
    [document] = await cloud.documents.find(SECURITY_GROUP)
    group = document.state
    assert (group.name, group.project_id) == ("default", "p")
    assert [(rule.direction, rule.ethertype, rule.remote_group_id) for rule in group.rules] == [
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", group.id),
        ("ingress", "IPv6", group.id),
    ]
    assert await ensure_default_group(cloud, "q") not in ids


async def test_a_default_group_begins_with_what_the_template_says_by_then(cloud):
    rule = DefaultRule(id="x", direction="ingress", protocol="icmp", used_in_default_sg=True)
    await cloud.executor.execute(Wish(DEFAULT_RULE_TEMPLATE, "all", AddDefaultRule(rule=rule)))
    await cloud.executor.execute(Wish(DEFAULT_RULE_TEMPLATE, "all", RemoveDefaultRule(rule_id=STANDARD[1].id)))
    id = await ensure_default_group(cloud, "p")
    group = (await cloud.documents.get(SECURITY_GROUP, id)).state
    assert [(it.direction, it.protocol, it.remote_group_id) for it in group.rules] == [
        ("egress", None, None),
        ("ingress", None, id),
        ("ingress", None, id),
        ("ingress", "icmp", None),
    ]


async def test_two_processes_that_need_it_at_once_make_the_same_group(cloud, settings, fresh_database):
    other = await open_cloud(settings, fresh_database)
    try:
        (one, making), (two, again) = await default_group(cloud, "p"), await default_group(other, "p")
        assert one == two
        await asyncio.gather(cloud.executor.execute(*making), other.executor.execute(*again))
        assert len(await cloud.documents.find(SECURITY_GROUP)) == 1
        assert await default_group(cloud, "p") == (one, [])
        assert {it.state.name: it.state.used for it in await cloud.documents.find(NETWORK_USAGE)} == {
            "security_group": 1,
            "security_group_rule": 4,
        }
    finally:
        await other.close()


async def test_a_default_group_that_was_deleted_is_followed_by_another(cloud):
    first = await ensure_default_group(cloud, "p")
    await cloud.executor.execute(Wish(SECURITY_GROUPS, first, DeleteSecurityGroup(even_default=True)))
    second = await ensure_default_group(cloud, "p")
    assert second != first
    assert [it.id for it in await cloud.documents.find(SECURITY_GROUP)] == [second]


async def _end(cloud, id):
    return await cloud.executor.execute(*await group_ended(cloud, id, even_default=False))


async def test_a_group_that_a_port_is_in_stays(cloud):
    group, port = clock.uuid4(), clock.uuid4()
    await cloud.executor.execute(Wish(SECURITY_GROUPS, group, CreateSecurityGroup(name="web", project_id="p")))
    making = Wish(PORTS, port, CreatePort(parent_id="n", mac_address="fa:16:3e:00:00:01", security_group_ids=(group,)))
    await cloud.executor.execute(making, *standing([group]))
    with pytest.raises(StillHeld):
        await _end(cloud, group)
    await cloud.executor.execute(Wish(PORTS, port, UpdatePort(security_group_ids=())))
    await _end(cloud, group)
    with pytest.raises(NotFound):
        await cloud.executor.execute(Wish(PORTS, port, UpdatePort(security_group_ids=(group,))), *standing([group]))


async def test_a_port_and_the_end_of_its_group_at_once_never_both_succeed(cloud, settings, fresh_database):
    other = await open_cloud(settings, fresh_database)
    try:
        for nth in range(10):
            group, port = clock.uuid4(), clock.uuid4()
            await cloud.executor.execute(Wish(SECURITY_GROUPS, group, CreateSecurityGroup(name="web", project_id="p")))
            command = CreatePort(parent_id="n", mac_address=f"fa:16:3e:00:00:{nth:02x}", security_group_ids=(group,))
            made, ended = await asyncio.gather(
                cloud.executor.execute(Wish(PORTS, port, command), *standing([group])),
                _end(other, group),
                return_exceptions=True,
            )
            assert isinstance(made, list) is not isinstance(ended, list)
    finally:
        await other.close()
