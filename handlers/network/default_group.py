"""The default security group: every project has one, from the moment it is first needed.

Its id follows from the project's: who needs it at the same moment elsewhere makes the very same group, and the second
making is no change. One that an administrator deleted is followed by another.
"""

from __future__ import annotations

import uuid

from msgspec.structs import replace

from bus import clock
from bus.cloud import Cloud
from bus.execute import SYSTEM, Context, Wish
from handlers.network.default_rule import default_rules
from handlers.network.quota import counting
from handlers.network.security_group import SECURITY_GROUPS
from schema.network.default_rule import DefaultRule
from schema.network.security_group import DEFAULT, SECURITY_GROUP, CreateSecurityGroup, SecurityRule
from schema.refusal import Refused

AFTER_EACH_OTHER = 1000
"""Default groups that one project may have had."""
_NAMESPACE = uuid.UUID("f8d0a6c4-5b0e-5a5e-9d4f-2f6f3f9d1c11")


async def default_group(cloud: Cloud, project_id: str) -> tuple[str, list[Wish]]:
    """Its id, and the wishes that make it, for the append of what needs it; none where it is there."""
    for number in range(AFTER_EACH_OTHER):
        id = default_id(project_id, number)
        stream = SECURITY_GROUP.stream(id)
        document = (await cloud.executor.load([stream])).get(stream)
        if document is None:
            return id, await _making(cloud, project_id, id)
        if document.state.living:
            return id, []
    raise Refused(f"Project {project_id} has had {AFTER_EACH_OTHER} default security groups; it gets no other.")


async def ensure_default_group(cloud: Cloud, project_id: str, by: Context = SYSTEM) -> str:
    """Its id; made now if there is none."""
    id, wishes = await default_group(cloud, project_id)
    if wishes:
        await cloud.executor.execute(*wishes, by=replace(by, idempotency="", fingerprint=""))
    return id


async def rules_from_template(cloud: Cloud, group_id: str, *, default: bool) -> tuple[SecurityRule, ...]:
    """What a new group begins with, as `/default-security-group-rules` says."""
    rules = await default_rules(cloud)
    return tuple(
        _rule(it, group_id, str(uuid.uuid5(uuid.UUID(group_id), it.id)) if default else clock.uuid4())
        for it in rules
        if (it.used_in_default_sg if default else it.used_in_non_default_sg)
    )


def default_id(project_id: str, number: int = 0) -> str:
    """The id of a project's first default group, and of those that followed it."""
    return str(uuid.uuid5(_NAMESPACE, f"{project_id}/{number}"))


async def _making(cloud: Cloud, project_id: str, id: str) -> list[Wish]:
    rules = await rules_from_template(cloud, id, default=True)
    command = CreateSecurityGroup(
        name=DEFAULT, project_id=project_id, description="Default security group", rules=rules
    )
    return [
        Wish(SECURITY_GROUPS, id, command),
        *counting(project_id, "security_group", [id]),
        *counting(project_id, "security_group_rule", [rule.id for rule in rules]),
    ]


def _rule(template: DefaultRule, group_id: str, id: str) -> SecurityRule:
    """What a template says is its own description, not the rule's."""
    return SecurityRule(
        id=id,
        direction=template.direction,
        ethertype=template.ethertype,
        protocol=template.protocol,
        port_range_min=template.port_range_min,
        port_range_max=template.port_range_max,
        remote_ip_prefix=template.remote_ip_prefix,
        remote_group_id=group_id if template.from_own_group else template.remote_group_id,
        remote_address_group_id=template.remote_address_group_id,
    )
