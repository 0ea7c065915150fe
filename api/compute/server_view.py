"""Servers as Nova shows them, in every microversion: one pass from states to what is written on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from api.compute.page import bookmark
from api.wire import Call
from api.wire.route import Version
from bus.cloud import Cloud
from bus.log import Document
from handlers.compute.desired import image_wanted, instance_name
from schema.compute.host import HOST, Host
from schema.compute.nic import ServerNic
from schema.compute.server import SERVER
from schema.compute.server_parts import Boot, ServerFlavor
from schema.compute.server_state import Server
from schema.compute.task import Task, VmState

EXTENDED = "os_compute_api:os-extended-server-attributes"
HOST_STATUS = "os_compute_api:servers:show:host_status"
EXTRA_SPECS = "os_compute_api:os-flavor-extra-specs:index"

ROOT_DEVICE = "/dev/vda"

STATUS: dict[VmState, str] = {
    VmState.BUILDING: "BUILD",
    VmState.ACTIVE: "ACTIVE",
    VmState.STOPPED: "SHUTOFF",
    VmState.PAUSED: "PAUSED",
    VmState.SUSPENDED: "SUSPENDED",
    VmState.RESCUED: "RESCUE",
    VmState.SHELVED: "SHELVED",
    VmState.SHELVED_OFFLOADED: "SHELVED_OFFLOADED",
    VmState.SOFT_DELETED: "SOFT_DELETED",
    VmState.RESIZED: "VERIFY_RESIZE",
    VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
REBOOTING: dict[Task, str] = {Task.REBOOTING: "REBOOT", Task.REBOOTING_HARD: "HARD_REBOOT"}
"""What an ACTIVE server is called meanwhile."""
ON_THE_WAY: dict[Task, str] = {
    Task.REBUILDING: "REBUILD",
    Task.REBUILD_SPAWNING: "REBUILD",
    Task.REBUILD_DISK: "REBUILD",
    Task.RESIZE_PREP: "RESIZE",
    Task.RESIZE_MIGRATING: "RESIZE",
    Task.RESIZE_FINISH: "RESIZE",
    Task.RESIZE_REVERTING: "REVERT_RESIZE",
    Task.MIGRATING: "MIGRATING",
}
"""What a server is called meanwhile, wherever it rests."""

_encode = msgspec.json.Encoder().encode

_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_WITH_FAULT = frozenset({"ERROR", "DELETED"})


def status(server: Server) -> str:
    """Nova's one word for it."""
    if server.task is not None and server.vm_state is VmState.ACTIVE and server.task in REBOOTING:
        return REBOOTING[server.task]
    return (server.task and ON_THE_WAY.get(server.task)) or STATUS[server.vm_state]


def addresses(server: Server) -> dict[str, list[dict[str, Any]]]:
    """Network → the addresses in it, each followed by the outside ones that lead to it."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for nic in server.nics:
        if nic.port_gone:
            continue
        for address in nic.addresses:
            known = shown.setdefault(nic.label, [])
            known.append(_address(address.ip, "fixed", nic))
            known.extend(_address(ip, "floating", nic) for ip in address.floating)
    return shown


def briefly(shown: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Addresses with nothing but their version."""
    return {
        label: [{"version": it["version"], "addr": it["addr"]} for it in addresses]
        for label, addresses in shown.items()
    }


def security_groups(server: Server) -> list[str]:
    """Names of the groups its ports are in."""
    return list(dict.fromkeys(name for nic in server.nics if not nic.port_gone for name in nic.security_groups))


def _address(ip: str, kind: str, nic: ServerNic) -> dict[str, Any]:
    return {
        "version": 6 if ":" in ip else 4,
        "addr": ip,
        "OS-EXT-IPS:type": kind,
        "OS-EXT-IPS-MAC:mac_addr": nic.mac_address,
    }


class View:
    """How one caller sees servers: the version and the caller's rights are looked at once, not for every server."""

    def __init__(self, call: Call) -> None:
        self._version: Version = call.version
        self._extended = call.may(EXTENDED)
        self._host_status = call.version >= (2, 16) and call.may(HOST_STATUS)
        self._extra_specs = call.version < (2, 47) or call.may(EXTRA_SPECS)
        self._self = call.url("/servers/")
        self._bookmark = bookmark(call, "/servers/")
        self._images = bookmark(call, "/images/")
        self._flavors = bookmark(call, "/flavors/")
        self._hosts = call.cloud.mirror(HOST)
        self._cloud = call.cloud
        self._way = (self._version, self._extended, self._host_status, self._extra_specs, self._self)

    async def one(self, server: Server, *, updated: bool = False) -> dict[str, Any]:
        """The answer that shows one server. `updated`: after a change, of which Nova says less before 2.75."""
        if updated and self._version < (2, 75):
            shown = self._core(server) | {"addresses": briefly(addresses(server))}
        else:
            shown = self._whole(server, await self._user_data([server]))
        if self._version >= (2, 71):
            shown["server_groups"] = [server.order.group_id] if server.order.group_id else []
        return {"server": shown}

    async def many(self, page: Sequence[tuple[str, int]]) -> bytes:
        """Whole servers as a JSON array, from their ids and versions. What was written once is not written again."""
        written = _written(self._cloud).seen(self._way)
        missing = [id for id, version in page if id not in written or written[id][0] != version]
        if missing:
            documents = (await self._cloud.documents.get_many(SERVER, missing)).values()
            user_data = await self._user_data([document.state for document in documents])
            for document in documents:
                written[document.id] = (document.version, _encode(self._whole(document.state, user_data)))
        return b"[" + b",".join([written[id][1] for id, _ in page]) + b"]"

    def brief(self, servers: Sequence[Server]) -> list[dict[str, Any]]:
        """Ids, names and links, for the short list."""
        return [{"id": server.id, "name": server.name, "links": self.links(server.id)} for server in servers]

    def links(self, id: str) -> list[dict[str, str]]:
        return [{"rel": "self", "href": self._self + id}, {"rel": "bookmark", "href": self._bookmark + id}]

    def _core(self, server: Server) -> dict[str, Any]:
        """What every answer about a server has."""
        version, word = self._version, status(server)
        shown: dict[str, Any] = {
            "id": server.id,
            "name": server.name,
            "status": word,
            "tenant_id": server.project_id,
            "user_id": server.order.user_id,
            "metadata": server.metadata,
            "hostId": host_id(server.project_id, server.host),
            "image": self._image(server),
            "flavor": self._flavor(server.flavor),
            "created": _zulu(server.created_at),
            "updated": _zulu(server.updated_at),
            "addresses": addresses(server),
            "accessIPv4": server.access_ipv4,
            "accessIPv6": server.access_ipv6,
            "links": self.links(server.id),
            "OS-DCF:diskConfig": server.disk_config,
        }
        if word in _WITH_PROGRESS:
            shown["progress"] = 0
        if word in _WITH_FAULT and server.fault is not None:
            shown["fault"] = self._fault(server)
        if version >= (2, 9):
            shown["locked"] = server.locked_by is not None
        if version >= (2, 19):
            shown["description"] = server.description
        if version >= (2, 26):
            shown["tags"] = server.tags
        if version >= (2, 63):
            shown["trusted_image_certificates"] = None
        if version >= (2, 73):
            shown["locked_reason"] = server.locked_reason
        return shown

    def _whole(self, server: Server, user_data: Mapping[str, str]) -> dict[str, Any]:
        """With what Nova's extensions once added."""
        shown = self._core(server)
        shown["config_drive"] = "True" if server.order.config_drive else ""
        shown["key_name"] = server.order.key_name
        shown["OS-EXT-AZ:availability_zone"] = server.zone or server.order.zone or ""
        shown["OS-EXT-STS:task_state"] = server.task
        shown["OS-EXT-STS:vm_state"] = server.vm_state
        shown["OS-EXT-STS:power_state"] = server.power_state
        shown["OS-SRV-USG:launched_at"] = _micro(server.launched_at)
        shown["OS-SRV-USG:terminated_at"] = _micro(server.deleted_at)
        shown["os-extended-volumes:volumes_attached"] = []
        # While it is built Nova shows none, and its client what was ordered.
        if server.vm_state is not VmState.BUILDING and (groups := security_groups(server)):
            shown["security_groups"] = [{"name": name} for name in groups]
        if self._extended:
            self._extend(shown, server, user_data)
        if self._version >= (2, 90):
            shown["OS-EXT-SRV-ATTR:hostname"] = server.hostname
        if self._host_status:
            shown["host_status"] = _status_of(self._host(server.host)) if server.host else ""
        if self._version >= (2, 96):
            shown["pinned_availability_zone"] = server.pinned_zone
        if self._version >= (2, 100):
            shown["scheduler_hints"] = server.order.scheduler_hints
        return shown

    def _extend(self, shown: dict[str, Any], server: Server, user_data: Mapping[str, str]) -> None:
        shown["OS-EXT-SRV-ATTR:host"] = server.host
        shown["OS-EXT-SRV-ATTR:hypervisor_hostname"] = server.host
        shown["OS-EXT-SRV-ATTR:instance_name"] = instance_name(server)
        if self._version >= (2, 3):
            shown["OS-EXT-SRV-ATTR:hostname"] = server.hostname
            shown["OS-EXT-SRV-ATTR:reservation_id"] = server.order.reservation_id
            shown["OS-EXT-SRV-ATTR:launch_index"] = server.order.launch_index
            shown["OS-EXT-SRV-ATTR:kernel_id"] = ""
            shown["OS-EXT-SRV-ATTR:ramdisk_id"] = ""
            shown["OS-EXT-SRV-ATTR:root_device_name"] = ROOT_DEVICE
            shown["OS-EXT-SRV-ATTR:user_data"] = user_data.get(server.order.secret_id)

    def _image(self, server: Server) -> Any:
        image = image_wanted(server)
        if image is None:
            return ""
        shown = {"id": image.id, "links": [{"rel": "bookmark", "href": self._images + image.id}]}
        return shown if self._version < (2, 98) else shown | {"properties": image.properties}

    def _flavor(self, flavor: ServerFlavor) -> dict[str, Any]:
        if self._version < (2, 47):
            return {"id": flavor.id, "links": [{"rel": "bookmark", "href": self._flavors + flavor.id}]}
        shown: dict[str, Any] = {
            "original_name": flavor.name,
            "vcpus": flavor.vcpus,
            "ram": flavor.ram_mb,
            "disk": flavor.disk_gb,
            "ephemeral": flavor.ephemeral_gb,
            "swap": flavor.swap_mb,
        }
        if self._extra_specs:
            shown["extra_specs"] = flavor.extra_specs
        return shown

    def _fault(self, server: Server) -> dict[str, Any]:
        fault = server.fault
        assert fault is not None
        shown = {"code": fault.code, "created": _zulu(fault.at), "message": fault.message}
        if fault.details and self._extended:
            shown["details"] = fault.details
        return shown

    def _host(self, name: str) -> Host | None:
        document = self._hosts.get(name)
        return document.state if document else None

    async def _user_data(self, servers: Sequence[Server]) -> dict[str, str]:
        """By secret id, for those who may see it: one query for all servers that have some."""
        if not self._extended or self._version < (2, 3):
            return {}
        ids = [server.order.secret_id for server in servers if server.order.has_user_data]
        opened = await self._cloud.vault.open_many(ids) if ids else {}
        return {id: msgspec.json.decode(plain, type=Boot).user_data for id, plain in opened.items()}


class _Written:
    """Servers as they were written, by the way they are seen: for lists, which show most of them again and again."""

    WAYS = 16
    SERVERS = 4096

    def __init__(self, cloud: Cloud) -> None:
        self._ways: dict[Any, dict[str, tuple[int, bytes]]] = {}
        cloud.mirror(HOST).on_change(self._host_changed)

    def seen(self, way: Any) -> dict[str, tuple[int, bytes]]:
        """Server id → (version, bytes)."""
        written = self._ways.pop(way, None)
        if written is None or len(written) > self.SERVERS:
            written = {}
        self._ways[way] = written
        if len(self._ways) > self.WAYS:
            del self._ways[next(iter(self._ways))]
        return written

    def _host_changed(self, before: Document | None, after: Document | None) -> None:
        """Some ways show how a server's host is."""
        self._ways.clear()


_of: WeakKeyDictionary[Any, _Written] = WeakKeyDictionary()


def _written(cloud: Cloud) -> _Written:
    found = _of.get(cloud.mirrors)
    if found is None:
        found = _of[cloud.mirrors] = _Written(cloud)
    return found


@lru_cache(8192)
def host_id(project_id: str, host: str | None) -> str:
    """The host as a project knows it: the same for two of its servers on one host, and no name."""
    return hashlib.sha224(f"{project_id}{host}".encode()).hexdigest() if host else ""


def _status_of(host: Host | None) -> str:
    if host is None:
        return "UNKNOWN"
    if not host.alive:
        return "DOWN"
    return "UP" if host.enabled else "MAINTENANCE"


def _zulu(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()[:19] + "Z"


def _micro(at: datetime | None) -> str | None:
    return None if at is None else at.replace(tzinfo=None).isoformat(timespec="microseconds")
