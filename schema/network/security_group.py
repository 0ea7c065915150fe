"""A security group: rules for what may reach the ports that are in it, and what they may send.

(absent) ──SecurityGroupCreated──▶ there ──SecurityRuleAdded, SecurityRuleRemoved──▶ there ──SecurityGroupDeleted──▶ gone
"""

from __future__ import annotations

from datetime import datetime

from schema.compute.domain import Word
from schema.event import State
from schema.network.wiring import Direction


class SecurityRule(Word):
    id: str
    direction: Direction
    ethertype: str = "IPv4"
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None
    remote_address_group_id: str | None = None
    description: str = ""
    created_at: datetime | None = None


class SecurityGroup(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    stateful: bool = True
    rules: tuple[SecurityRule, ...] = ()
    shared_with: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
