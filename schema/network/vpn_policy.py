"""How the two ends of an IPsec connection agree: IKE policies for the talk, IPsec policies for what is carried.

(absent) ──…PolicyCreated──▶ there ──…PolicyDeleted──▶ gone        while a connection uses it, it stays as it is
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from schema.changes import applied
from schema.event import Command, Event, Kind, Said, State

LifetimeUnits = Literal["seconds", "kilobytes"]


class IkePolicy(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    auth_algorithm: str = "sha1"
    encryption_algorithm: str = "aes-128"
    phase1_negotiation_mode: str = "main"
    ike_version: str = "v1"
    pfs: str = "group5"
    lifetime_units: LifetimeUnits = "seconds"
    lifetime_value: int = 3600
    users: tuple[str, ...] = ()
    """Connections that use it."""


class _NewIkePolicy(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    auth_algorithm: str = "sha1"
    encryption_algorithm: str = "aes-128"
    phase1_negotiation_mode: str = "main"
    ike_version: str = "v1"
    pfs: str = "group5"
    lifetime_units: LifetimeUnits = "seconds"
    lifetime_value: int = 3600


class IkePolicyCreated(Event, _NewIkePolicy):
    """It is there."""


class _IkePolicyChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    auth_algorithm: str | UnsetType = UNSET
    encryption_algorithm: str | UnsetType = UNSET
    phase1_negotiation_mode: str | UnsetType = UNSET
    ike_version: str | UnsetType = UNSET
    pfs: str | UnsetType = UNSET
    lifetime_units: LifetimeUnits | UnsetType = UNSET
    lifetime_value: int | UnsetType = UNSET


class IkePolicyUpdated(Event, _IkePolicyChanges):
    """It is changed."""


class IkePolicyUsed(Event):
    user_id: str


class IkePolicyLeft(Event):
    user_id: str


class IkePolicyDeleted(Event):
    pass


class CreateIkePolicy(Command, _NewIkePolicy):
    """Make it."""


class UpdateIkePolicy(Command, _IkePolicyChanges):
    """Change it."""


class UseIkePolicy(Command):
    user_id: str


class LeaveIkePolicy(Command):
    user_id: str


class DeleteIkePolicy(Command):
    pass


IkePolicyEvent = IkePolicyCreated | IkePolicyUpdated | IkePolicyUsed | IkePolicyLeft | IkePolicyDeleted


def evolve_ike(policy: IkePolicy, event: IkePolicyEvent, at: datetime) -> IkePolicy:
    match event:
        case IkePolicyCreated() | IkePolicyUpdated():
            return applied(policy, event)
        case IkePolicyUsed():
            return replace(policy, users=(*policy.users, event.user_id))
        case IkePolicyLeft():
            return replace(policy, users=tuple(it for it in policy.users if it != event.user_id))
        case IkePolicyDeleted():
            return replace(policy, deleted_at=at)


class IpsecPolicy(State):
    name: str = ""
    project_id: str = ""
    description: str = ""
    transform_protocol: str = "esp"
    auth_algorithm: str = "sha1"
    encryption_algorithm: str = "aes-128"
    encapsulation_mode: str = "tunnel"
    pfs: str = "group5"
    lifetime_units: LifetimeUnits = "seconds"
    lifetime_value: int = 3600
    users: tuple[str, ...] = ()


class _NewIpsecPolicy(Said):
    name: str = ""
    project_id: str = ""
    description: str = ""
    transform_protocol: str = "esp"
    auth_algorithm: str = "sha1"
    encryption_algorithm: str = "aes-128"
    encapsulation_mode: str = "tunnel"
    pfs: str = "group5"
    lifetime_units: LifetimeUnits = "seconds"
    lifetime_value: int = 3600


class IpsecPolicyCreated(Event, _NewIpsecPolicy):
    """It is there."""


class _IpsecPolicyChanges(Said):
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    transform_protocol: str | UnsetType = UNSET
    auth_algorithm: str | UnsetType = UNSET
    encryption_algorithm: str | UnsetType = UNSET
    encapsulation_mode: str | UnsetType = UNSET
    pfs: str | UnsetType = UNSET
    lifetime_units: LifetimeUnits | UnsetType = UNSET
    lifetime_value: int | UnsetType = UNSET


class IpsecPolicyUpdated(Event, _IpsecPolicyChanges):
    """It is changed."""


class IpsecPolicyUsed(Event):
    user_id: str


class IpsecPolicyLeft(Event):
    user_id: str


class IpsecPolicyDeleted(Event):
    pass


class CreateIpsecPolicy(Command, _NewIpsecPolicy):
    """Make it."""


class UpdateIpsecPolicy(Command, _IpsecPolicyChanges):
    """Change it."""


class UseIpsecPolicy(Command):
    user_id: str


class LeaveIpsecPolicy(Command):
    user_id: str


class DeleteIpsecPolicy(Command):
    pass


IpsecPolicyEvent = IpsecPolicyCreated | IpsecPolicyUpdated | IpsecPolicyUsed | IpsecPolicyLeft | IpsecPolicyDeleted


def evolve_ipsec(policy: IpsecPolicy, event: IpsecPolicyEvent, at: datetime) -> IpsecPolicy:
    match event:
        case IpsecPolicyCreated() | IpsecPolicyUpdated():
            return applied(policy, event)
        case IpsecPolicyUsed():
            return replace(policy, users=(*policy.users, event.user_id))
        case IpsecPolicyLeft():
            return replace(policy, users=tuple(it for it in policy.users if it != event.user_id))
        case IpsecPolicyDeleted():
            return replace(policy, deleted_at=at)


IKE_POLICY = Kind("ike-policy", IkePolicy, IkePolicyEvent, evolve_ike)
IPSEC_POLICY = Kind("ipsec-policy", IpsecPolicy, IpsecPolicyEvent, evolve_ipsec)
