"""Lists of servers: Nova's filters, sorting and paging as one query, then one pass to what is written."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import field

from api.compute.page import STRICT_SINCE, Paging, listing, next_link, page_size, regex
from api.compute.server import RULE
from api.compute.server_view import ON_THE_WAY, REBOOTING, ROOT_DEVICE, STATUS, View
from api.compute.times import second_after
from api.wire import Call
from api.wire.query import boolean
from api.wire.route import Version, parse_version
from bus.documents import AnyOf, Sort, Where
from schema.compute.server import SERVER
from schema.compute.server_state import Server
from schema.compute.task import Task, VmState
from schema.refusal import Forbidden, Invalid, NotFound

T = TypeVar("T")

STRICT = parse_version(STRICT_SINCE)
ALL_TENANTS = f"{RULE}:index:get_all_tenants"
ALL_FILTERS = f"{RULE}:allow_all_filters"


class ServersQuery(Paging, frozen=True):
    """Every parameter of any version. `_FILTERS` says what they do, `_SINCE` from when on members may use them."""

    sort_key: tuple[str, ...] = ()
    sort_dir: tuple[str, ...] = ()
    all_tenants: str | None = None
    name: str | None = None
    display_name: str | None = None
    description: str | None = None
    display_description: str | None = None
    status: tuple[str, ...] = ()
    vm_state: str | None = None
    task_state: str | None = None
    power_state: str | None = None
    progress: str | None = None
    flavor: str | None = None
    image: str | None = None
    image_ref: str | None = None
    host: str | None = None
    node: str | None = None
    hostname: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    tenant_id: str | None = None
    uuid: str | None = None
    key_name: str | None = None
    config_drive: str | None = None
    availability_zone: str | None = None
    reservation_id: str | None = None
    launch_index: int | None = None
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    ip: str | None = None
    ip6: str | None = None
    created_at: datetime | None = None
    launched_at: datetime | None = None
    terminated_at: datetime | None = None
    changes_since: datetime | None = field(default=None, name="changes-since")
    changes_before: datetime | None = field(default=None, name="changes-before")
    deleted: str | None = None
    soft_deleted: str | None = None
    locked: str | None = None
    locked_by: str | None = None
    tags: str | None = None
    tags_any: str | None = field(default=None, name="tags-any")
    not_tags: str | None = field(default=None, name="not-tags")
    not_tags_any: str | None = field(default=None, name="not-tags-any")
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    root_device_name: str | None = None
    auto_disk_config: str | None = None
    block_device_mapping: str | None = None
    services: str | None = None
    metadata: str | None = None
    system_metadata: str | None = None
    security_groups: str | None = None
    info_cache: str | None = None
    pci_devices: str | None = None


_SINCE: dict[str, Version] = {
    "name": (2, 1),
    "status": (2, 1),
    "flavor": (2, 1),
    "image": (2, 1),
    "reservation_id": (2, 1),
    "ip": (2, 1),
    "changes_since": (2, 1),
    "ip6": (2, 5),
    "tags": (2, 26),
    "tags_any": (2, 26),
    "not_tags": (2, 26),
    "not_tags_any": (2, 26),
    "changes_before": (2, 66),
    "locked": (2, 73),
    "availability_zone": (2, 83),
    "config_drive": (2, 83),
    "key_name": (2, 83),
    "created_at": (2, 83),
    "launched_at": (2, 83),
    "terminated_at": (2, 83),
    "power_state": (2, 83),
    "task_state": (2, 83),
    "vm_state": (2, 83),
    "progress": (2, 83),
    "user_id": (2, 83),
    "hostname": (2, 90),
}
"""What members may filter by, and since when; the rest is for administrators. What may not be used is passed over."""

_PATTERNS = (
    "access_ip_v4",
    "access_ip_v6",
    "auto_disk_config",
    "availability_zone",
    "config_drive",
    "description",
    "display_description",
    "display_name",
    "flavor",
    "hostname",
    "ip",
    "ip6",
    "kernel_id",
    "key_name",
    "locked_by",
    "name",
    "node",
    "not_tags",
    "not_tags_any",
    "power_state",
    "progress",
    "ramdisk_id",
    "reservation_id",
    "root_device_name",
    "tags",
    "tags_any",
)
"""What must be a regular expression, even where it is compared as it stands, or passed over."""

_NONE = Where("id", "=", "")
"""A condition that nothing meets."""

_NO_FILTERS = (
    "block_device_mapping",
    "info_cache",
    "metadata",
    "pci_devices",
    "security_groups",
    "services",
    "system_metadata",
)
"""Tables of Nova's that no list was ever filtered by: refused to those who may use every filter."""


_Conditions = Callable[[Any], Sequence[Where | AnyOf]]


def _equal(path: str) -> _Conditions:
    return lambda value: [Where(path, "=", value)]


def _like(path: str) -> _Conditions:
    return lambda value: [Where(path, "~", value)]


def _all_tags(op: Literal["has", "has not"]) -> _Conditions:
    return lambda value: [Where("tags", op, tag) for tag in value.split(",")]


def _any_tag(op: Literal["has", "has not"]) -> _Conditions:
    return lambda value: [AnyOf([[Where("tags", op, tag)] for tag in value.split(",")])]


def _always(text: str) -> _Conditions:
    """What is the same of every server: all are found, or none."""
    return lambda value: [] if regex(value).search(text) else [_NONE]


def _automatic(value: str) -> Sequence[Where | AnyOf]:
    automatic = _true_or_false("auto_disk_config", value)
    return [Where("disk_config", "=", "AUTO" if automatic else "MANUAL")]


def _true_or_false(name: str, text: str) -> bool:
    value = boolean(text)
    if value is None:
        raise Invalid(f"Invalid value {text[:64]!r} for {name}: it must be true or false.")
    return value


_FILTERS: dict[str, _Conditions] = {
    "name": _like("name"),
    "display_name": _like("name"),
    "description": _like("description"),
    "display_description": _like("description"),
    "vm_state": _equal("vm_state"),
    "task_state": lambda value: [Where("task", "=", value)],
    "power_state": lambda value: [Where("power_state", "=", int(value))] if value.isdigit() else [_NONE],
    "progress": lambda value: [] if value == "0" else [_NONE],
    "flavor": _equal("flavor.id"),
    "image": _equal("image.id"),
    "image_ref": _equal("image.id"),
    "host": _equal("parent_id"),
    "node": _equal("parent_id"),
    "hostname": _like("hostname"),
    "user_id": _equal("order.user_id"),
    "uuid": _equal("id"),
    "key_name": _equal("order.key_name"),
    "config_drive": lambda value: [Where("order.config_drive", "is", _true_or_false("config_drive", value))],
    "availability_zone": _equal("zone"),
    "reservation_id": _equal("order.reservation_id"),
    "launch_index": lambda value: [Where("order.launch_index", "=", value)],
    "access_ip_v4": _like("access_ipv4"),
    "access_ip_v6": _like("access_ipv6"),
    "created_at": _equal("created_at"),
    "launched_at": _equal("launched_at"),
    "terminated_at": _equal("deleted_at"),
    "changes_since": lambda at: [Where("updated_at", ">=", at)],
    "changes_before": lambda at: [Where("updated_at", "<", second_after(at))],
    "locked": lambda value: [Where("locked_by", "is", _true_or_false("locked", value))],
    "locked_by": _equal("locked_by"),
    "tags": _all_tags("has"),
    "tags_any": _any_tag("has"),
    "not_tags": _any_tag("has not"),
    "not_tags_any": _all_tags("has not"),
    "kernel_id": _always(""),
    "ramdisk_id": _always(""),
    "root_device_name": _always(ROOT_DEVICE),
    "auto_disk_config": _automatic,
}

_SORT_KEYS: dict[str, str] = {
    "access_ip_v4": "access_ipv4",
    "access_ip_v6": "access_ipv6",
    "auto_disk_config": "disk_config",
    "availability_zone": "zone",
    "config_drive": "order.config_drive",
    "created_at": "created_at",
    "display_description": "description",
    "display_name": "name",
    "host": "parent_id",
    "hostname": "hostname",
    "image_ref": "image.id",
    "instance_type_id": "flavor.id",
    "kernel_id": "id",
    "key_name": "order.key_name",
    "launch_index": "order.launch_index",
    "launched_at": "launched_at",
    "locked": "locked_by",
    "locked_by": "locked_by",
    "node": "parent_id",
    "power_state": "power_state",
    "progress": "id",
    "project_id": "project_id",
    "ramdisk_id": "id",
    "root_device_name": "id",
    "task_state": "task",
    "terminated_at": "deleted_at",
    "updated_at": "updated_at",
    "user_id": "order.user_id",
    "uuid": "id",
    "vm_state": "vm_state",
}
_PASSED_OVER = frozenset(
    {
        "architecture",
        "cell_name",
        "cleaned",
        "default_ephemeral_device",
        "default_swap_device",
        "deleted",
        "deleted_at",
        "disable_terminate",
        "ephemeral_gb",
        "ephemeral_key_uuid",
        "id",
        "key_data",
        "launched_on",
        "locked",
        "memory_mb",
        "os_type",
        "reservation_id",
        "root_gb",
        "shutdown_terminate",
        "user_data",
        "vcpus",
        "vm_mode",
    }
)
"""Sort keys that were passed over until 2.75, and are refused since; `locked` sorts since 2.73."""
LOCKED_SORTS_SINCE = (2, 73)
_FOR_ADMINS = frozenset({"host", "node"})


def _named(status: str) -> list[Task]:
    """The tasks of a server that is called so meanwhile."""
    return [task for task, word in ON_THE_WAY.items() if word == status]


_STATUSES: dict[str, list[Where]] = {
    **{word: [Where("vm_state", "=", vm_state)] for vm_state, word in STATUS.items()},
    **{word: [Where("vm_state", "=", VmState.ACTIVE), Where("task", "=", task)] for task, word in REBOOTING.items()},
    **{word: [Where("task", "in", _named(word))] for word in dict.fromkeys(ON_THE_WAY.values())},
}


async def index(call: Call) -> dict[str, Any]:
    servers = [document.state for document in await _page(call, call.cloud.documents.find)]
    return {"servers": View(call).brief(servers)} | _links(call, [server.id for server in servers])


async def detail(call: Call) -> bytes:
    page = await _page(call, call.cloud.documents.versions)
    return msgspec.json.encode(
        {"servers": msgspec.Raw(await View(call).many(page))} | _links(call, [id for id, _ in page])
    )


async def _page(call: Call, read: Callable[..., Awaitable[list[T]]]) -> list[T]:
    """One page of what was asked for, read in one of the ways documents are read. Raises Invalid."""
    query: ServersQuery = call.params
    sort, where, gone = _sort(call, query), _where(call, query), _gone(call, query)
    if where is None:
        return []
    if call.version >= _SINCE["ip6"] or call.may(ALL_FILTERS):
        where += await _with_address(call, where, 6, query.ip6)
    where += await _with_address(call, where, 4, query.ip)
    try:
        return await read(SERVER, where=where, sort=sort, limit=page_size(call), marker=query.marker, gone=gone)
    except NotFound:
        raise Invalid(f"marker [{query.marker}] not found") from None


async def _with_address(
    call: Call, where: Sequence[Where | AnyOf], version: Literal[4, 6], pattern: str | None
) -> list[Where | AnyOf]:
    """The servers among these that have a fixed address like this, which is a regular expression. Raises Invalid."""
    if pattern is None:
        return []
    like = regex(pattern)
    attached = await call.cloud.documents.find(
        SERVER, where=[*where, Where("nics", "is", True)], sort=(), limit=None, gone=None
    )
    return [Where("id", "in", [it.id for it in attached if _has_address(it.state, version, like)])]


def _has_address(server: Server, version: int, like: re.Pattern[str]) -> bool:
    return any(
        address.version == version and like.match(address.ip) for nic in server.nics for address in nic.addresses
    )


def _where(call: Call, query: ServersQuery) -> list[Where | AnyOf] | None:
    """The filters as conditions; None: they contradict each other. Raises Invalid."""
    for name in _PATTERNS:
        if (pattern := getattr(query, name)) is not None:
            regex(pattern)
    where: list[Where | AnyOf] = []
    project_id = _project(call, query)
    if project_id is not None:
        where.append(Where("project_id", "=", project_id))
    for name in _NO_FILTERS:
        if getattr(query, name) is not None and call.may(ALL_FILTERS):
            raise Invalid(f"Invalid filter field: {name}.")
    for name, conditions in _FILTERS.items():
        value = _asked(call, query, name)
        if value is not None:
            where += conditions(value)
    if query.status:
        where += _of_status(call, query.status)
    since, before = _asked(call, query, "changes_since"), _asked(call, query, "changes_before")
    if call.cloud.settings.reclaim_instance_interval and not (since or before or _soft_deleted(call, query)):
        where.append(Where("vm_state", "!=", VmState.SOFT_DELETED))
    if since and before and since > before:
        raise Invalid("The value of changes-since must be less than or equal to changes-before.")
    return None if _NONE in where else where


def _asked(call: Call, query: ServersQuery, name: str) -> Any:
    """A filter's value, if it is given and the caller may filter by it in this version."""
    value = getattr(query, name)
    if value is None or call.version >= _SINCE.get(name, (999, 999)) or call.may(ALL_FILTERS):
        return value
    return None


def _project(call: Call, query: ServersQuery) -> str | None:
    """Whose servers: the caller's project's, unless all are asked for; None: everybody's.

    A project named without `all_tenants` is passed over, as Nova does.
    """
    asked = query.all_tenants is not None and (
        not query.all_tenants or _true_or_false("all_tenants", query.all_tenants)
    )
    if asked:
        call.must(ALL_TENANTS)
        return query.project_id or query.tenant_id
    return call.token.project_id or ""


def _of_status(call: Call, words: Sequence[str]) -> list[Where | AnyOf]:
    """Servers of any of these statuses. A word that is none finds nothing, or (2.38) is refused."""
    known = [word.upper() for word in words if word.upper() in _STATUSES]
    if not known:
        if call.version >= (2, 38):
            raise Invalid(f"Invalid status value: {', '.join(words)[:255]}")
        return [_NONE]
    if _only_deleted(words) and not call.may(ALL_FILTERS):
        raise Forbidden("Only administrators may list deleted instances")
    return [AnyOf([_STATUSES[word] for word in known])]


def _only_deleted(words: Sequence[str]) -> bool:
    return {word.upper() for word in words} & _STATUSES.keys() == {"DELETED"}


def _soft_deleted(call: Call, query: ServersQuery) -> bool:
    """Whether those that could be restored are asked for."""
    if query.deleted is not None and boolean(query.deleted) is True and call.may(ALL_FILTERS):
        return True
    return "SOFT_DELETED" in {word.upper() for word in query.status or ()} or query.vm_state == VmState.SOFT_DELETED


def _gone(call: Call, query: ServersQuery) -> bool | None:
    """Which are meant: those there (False), those deleted (True), or both (None)."""
    if query.deleted is not None and call.may(ALL_FILTERS):
        return _only_deleted(query.status) or boolean(query.deleted) is True
    if _only_deleted(query.status):
        return True
    changed = _asked(call, query, "changes_since") or _asked(call, query, "changes_before")
    return None if changed else False


def _sort(call: Call, query: ServersQuery) -> list[Sort]:
    keys = query.sort_key or ["created_at"]
    directions = query.sort_dir or ["desc"]
    for direction in directions:
        if direction not in {"asc", "desc"}:
            raise Invalid(f"Invalid input for sort_dir: {direction[:64]!r} is neither asc nor desc")
    sort: list[Sort] = []
    for nth, key in enumerate(keys):
        if key in _PASSED_OVER and call.version < (LOCKED_SORTS_SINCE if key == "locked" else STRICT):
            continue
        if key not in _SORT_KEYS:
            raise Invalid(f"Invalid input for sort_key: {key[:64]!r} is none of {', '.join(_SORT_KEYS)}")
        if key in _FOR_ADMINS and not call.token.is_admin:
            raise Forbidden(f"Only administrators can sort servers by {', '.join(sorted(_FOR_ADMINS))}")
        sort.append(Sort(_SORT_KEYS[key], directions[min(nth, len(directions) - 1)] == "desc"))
    sort = sort or [Sort(_SORT_KEYS["created_at"], descending=True)]
    return [*sort, Sort("id", sort[-1].descending)]


def _links(call: Call, ids: Sequence[str]) -> dict[str, Any]:
    if not ids or len(ids) < page_size(call):
        return {}
    return {"servers_links": next_link(call, ids, str)}


routes = [
    *listing("/servers", index, f"{RULE}:index", ServersQuery),
    *listing("/servers/detail", detail, f"{RULE}:detail", ServersQuery),
]
