"""VPN's policies at the door: how the ends of a connection agree (IKE), how what they carry is kept (IPsec)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api.network.filter import Filter
from api.network.resource import Resource, common, project_of, resource_routes, to_change, viewed
from api.network.words import Body, LongText, Project, Text
from api.wire import Call
from api.wire.route import Handler
from bus import clock
from bus.execute import Aggregate, Wish
from bus.log import Document
from handlers.network.quota import giving_back, taking
from handlers.network.vpn import IKE_POLICIES, IPSEC_POLICIES, ike_policy_not_found, ipsec_policy_not_found
from schema.event import Command
from schema.network.vpn_policy import (
    IKE_POLICY,
    IPSEC_POLICY,
    CreateIkePolicy,
    CreateIpsecPolicy,
    DeleteIkePolicy,
    DeleteIpsecPolicy,
    UpdateIkePolicy,
    UpdateIpsecPolicy,
)

Auth = Literal["sha1", "sha256", "sha384", "sha512", "aes-xcbc", "aes-cmac"]
Encryption = Annotated[str, Meta(pattern=r"^(3des|aes-(128|192|256)(-(ctr|(ccm|gcm)-(8|12|16)))?)$")]
Group = Annotated[str, Meta(pattern=r"^group(2|5|1[4-9]|2[0-9]|3[01])$")]
Units = Literal["seconds", "kilobytes"]
LEAST_LIFETIME = 60


class Lifetime(Body):
    units: Units = "seconds"
    value: Annotated[int, Meta(ge=LEAST_LIFETIME)] = 3600


class LifetimeChange(Body):
    units: Units | UnsetType = UNSET
    value: Annotated[int, Meta(ge=LEAST_LIFETIME)] | UnsetType = UNSET


class _New(Body):
    name: Text = ""
    description: LongText = ""
    tenant_id: Project | None = None
    project_id: Project | None = None
    auth_algorithm: Auth = "sha1"
    encryption_algorithm: Encryption = "aes-128"
    pfs: Group = "group5"
    lifetime: Lifetime | None = None


class _Change(Body):
    name: Text | UnsetType = UNSET
    description: LongText | UnsetType = UNSET
    auth_algorithm: Auth | UnsetType = UNSET
    encryption_algorithm: Encryption | UnsetType = UNSET
    pfs: Group | UnsetType = UNSET
    lifetime: LifetimeChange | UnsetType = UNSET


class NewIkePolicy(_New):
    phase1_negotiation_mode: Literal["main", "aggressive"] = "main"
    ike_version: Literal["v1", "v2"] = "v1"


class IkePolicyChange(_Change):
    phase1_negotiation_mode: Literal["main", "aggressive"] | UnsetType = UNSET
    ike_version: Literal["v1", "v2"] | UnsetType = UNSET


class NewIpsecPolicy(_New):
    transform_protocol: Literal["esp", "ah", "ah-esp"] = "esp"
    encapsulation_mode: Literal["tunnel", "transport"] = "tunnel"


class IpsecPolicyChange(_Change):
    transform_protocol: Literal["esp", "ah", "ah-esp"] | UnsetType = UNSET
    encapsulation_mode: Literal["tunnel", "transport"] | UnsetType = UNSET


class CreateIkeBody(Body):
    ikepolicy: NewIkePolicy


class UpdateIkeBody(Body):
    ikepolicy: IkePolicyChange


class CreateIpsecBody(Body):
    ipsecpolicy: NewIpsecPolicy


class UpdateIpsecBody(Body):
    ipsecpolicy: IpsecPolicyChange


def _viewing(*fields: str) -> Callable[[Call, Sequence[Document]], Any]:
    async def view(call: Call, documents: Sequence[Document]) -> list[dict[str, Any]]:
        return [_view(document, fields) for document in documents]

    return view


def _view(document: Document, fields: Sequence[str]) -> dict[str, Any]:
    policy = document.state
    shown = common(document)
    for name in ("tags", "created_at", "updated_at", "revision_number"):
        del shown[name]
    return {
        **shown,
        **{name: getattr(policy, name) for name in fields},
        "lifetime": {"units": policy.lifetime_units, "value": policy.lifetime_value},
    }


_COMMON = ("auth_algorithm", "encryption_algorithm", "pfs")
_IKE_FIELDS = (*_COMMON, "phase1_negotiation_mode", "ike_version")
_IPSEC_FIELDS = (*_COMMON, "transform_protocol", "encapsulation_mode")

IKE = Resource(
    name="ikepolicy",
    plural="ikepolicies",
    path="/vpn/ikepolicies",
    kind=IKE_POLICY,
    view=_viewing(*_IKE_FIELDS),
    missing=ike_policy_not_found,
    filters={name: Filter() for name in _IKE_FIELDS},
)
IPSEC = Resource(
    name="ipsecpolicy",
    plural="ipsecpolicies",
    path="/vpn/ipsecpolicies",
    kind=IPSEC_POLICY,
    view=_viewing(*_IPSEC_FIELDS),
    missing=ipsec_policy_not_found,
    filters={name: Filter() for name in _IPSEC_FIELDS},
)


class _Doors(msgspec.Struct, frozen=True):
    """What a kind of policy needs at the door."""

    resource: Resource
    rules: Aggregate
    new: type[Command]
    change: type[Command]
    end: type[Command]

    def creating(self) -> Handler:
        async def create(call: Call) -> dict[str, Any]:
            body: _New = getattr(call.body, self.resource.name)
            project_id, id = project_of(call, body.project_id, body.tenant_id), clock.uuid4()
            counted = await taking(call.cloud, project_id, self.resource.name, [id])
            fields = _fields(body) | {"project_id": project_id}
            [document, *_] = await call.execute(Wish(self.rules, id, self.new(**fields)), *counted)
            return {self.resource.name: await viewed(call, self.resource, document)}

        return create

    def updating(self) -> Handler:
        async def update(call: Call) -> dict[str, Any]:
            before = await to_change(call, self.resource, call.path["id"])
            command = self.change(**_fields(getattr(call.body, self.resource.name)))
            [document] = await call.execute(Wish(self.rules, before.id, command))
            return {self.resource.name: await viewed(call, self.resource, document)}

        return update

    def deleting(self) -> Handler:
        async def delete(call: Call) -> None:
            before = await to_change(call, self.resource, call.path["id"])
            back = giving_back(before.state.project_id, self.resource.name, [before.id])
            await call.execute(Wish(self.rules, before.id, self.end()), *back)

        return delete

    def routes(self, create_body: Any, update_body: Any) -> list[Any]:
        return resource_routes(
            self.resource,
            create=self.creating(),
            create_body=create_body,
            update=self.updating(),
            update_body=update_body,
            delete=self.deleting(),
        )


def _fields(body: _New | _Change) -> dict[str, Any]:
    """What a command takes of a body: the lifetime in two."""
    fields = {
        name: value
        for name in body.__struct_fields__
        if (value := getattr(body, name)) is not UNSET and name not in {"lifetime", "tenant_id", "project_id"}
    }
    lifetime = body.lifetime
    if lifetime is not UNSET and lifetime is not None:
        fields |= {"lifetime_units": lifetime.units, "lifetime_value": lifetime.value}
    return fields


routes = [
    *_Doors(IKE, IKE_POLICIES, CreateIkePolicy, UpdateIkePolicy, DeleteIkePolicy).routes(CreateIkeBody, UpdateIkeBody),
    *_Doors(IPSEC, IPSEC_POLICIES, CreateIpsecPolicy, UpdateIpsecPolicy, DeleteIpsecPolicy).routes(
        CreateIpsecBody, UpdateIpsecBody
    ),
]
