"""Settings: one TOML file, environment variables over it, defaults below both. A wrong value is refused by its key.

    CUMULOG_<KEY>  ▶  the TOML file  ▶  the default            scheduler.ram_weight is CUMULOG_SCHEDULER_RAM_WEIGHT

The file is $CUMULOG_CONFIG, else <home>/cumulog.toml.
"""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

EMBEDDED = "embedded"
MEMORY = "memory"
RABBITMQ = "rabbitmq"

Positive = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(gt=0, le=1000)]
Weight = Annotated[float, Meta(ge=-1000, le=1000)]


class ConfigurationError(Exception):
    """A setting is wrong; the text names the key, where it came from and what it may be."""


class Scheduler(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Allocation ratios of a new host's inventory, and how much each weigher counts (negative: pack, do not spread)."""

    cpu_ratio: Ratio = 4.0
    ram_ratio: Ratio = 1.0
    disk_ratio: Ratio = 1.0
    reserved_memory_mb: Annotated[int, Meta(ge=0)] = 512
    ram_weight: Weight = 1.0
    cpu_weight: Weight = 1.0
    disk_weight: Weight = 1.0
    io_ops_weight: Weight = 0.0
    num_instances_weight: Weight = 0.0
    hypervisor_version_weight: Weight = 1.0
    pci_weight: Weight = 1.0
    metrics_weight: Weight = 1.0
    metrics: dict[str, str] = {}
    """Metrics that hosts report → how much each counts in the weigher Metrics: `"cpu.percent" = "-1"`."""
    metrics_unavailable_weight: float = -10_000.0
    """What a host weighs that does not report all of them."""
    soft_affinity_weight: Weight = 10.0
    soft_anti_affinity_weight: Weight = 10.0
    build_failure_weight: Annotated[float, Meta(ge=-1e9, le=1e9)] = 1000.0
    image_props_weight: Weight = 0.0
    """Positive: servers of images with the same properties come together. 0: nothing is counted, whatever aggregates
    say."""
    image_props_weight_setting: dict[str, str] = {}
    """Properties of images → how much each counts in the weigher ImageProperties; empty: all of them, and alike."""
    cross_cell_move_weight: Annotated[float, Meta(ge=-1e9, le=1e9)] = 1_000_000.0
    """Positive: a server that moves stays in its cell. There is one cell, so it changes nothing."""
    weighers: tuple[str, ...] = (
        "RAM",
        "CPU",
        "Disk",
        "IoOps",
        "NumInstances",
        "HypervisorVersion",
        "PCI",
        "Metrics",
        "ServerGroupSoftAffinity",
        "ServerGroupSoftAntiAffinity",
        "BuildFailure",
        "ImageProperties",
        "CrossCell",
    )
    """By Nova's names or those of entry points; a third party's counts once, or as often as its aggregates say."""
    filters: tuple[str, ...] = (
        "Compute",
        "ComputeCapabilities",
        "ImageProperties",
        "AggregateInstanceExtraSpecs",
        "AggregateMultiTenancyIsolation",
        "SameHost",
        "DifferentHost",
        "ServerGroupAntiAffinity",
        "ServerGroupAffinity",
    )
    """In their order, by Nova's names (with or without Filter) or those of entry points."""
    isolate_aggregates: bool = False
    """An aggregate with `trait:X=required` is kept for flavors and images that require X."""
    require_tenant_aggregate: bool = False
    """A project's servers go to aggregates whose filter_tenant_id names it, and nowhere else."""
    limit_tenants_to_aggregates: bool = False
    """The same for projects that some filter_tenant_id names; the others go anywhere."""
    require_image_type_support: bool = False
    """An image goes to hosts that say they can boot its format (the trait COMPUTE_IMAGE_TYPE_…)."""
    image_metadata_prefilter: bool = False
    """An image that names buses and models of its devices goes to hosts that say they have them."""
    isolated_images: tuple[str, ...] = ()
    isolated_hosts: tuple[str, ...] = ()
    """IsolatedHosts: these images run on these hosts only."""
    restrict_isolated_hosts: bool = True
    """… and these hosts run nothing else."""
    max_io_ops_per_host: Positive = 8
    """IoOps, AggregateIoOps."""
    max_instances_per_host: Positive = 50
    """NumInstances, AggregateNumInstances."""
    pci_aliases: dict[str, str] = {}
    """What flavors call PCI devices (`pci_passthrough:alias`): `gpu = "10de:1eb8"`, and behind that, or not, which kind
    (`type-PCI`, `type-PF`, `type-VF`) and how near to the guest's NUMA nodes (`legacy`, `preferred`, `required`,
    `socket`)."""
    attempts: Positive = 3
    """Hosts tried for one server before it ends in ERROR."""


class Networking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How hosts wire their guests."""

    driver: Literal["", "linuxbridge", "ovs", "simulated", "none"] = ""
    """Empty: `linuxbridge` beside libvirt, `simulated` beside the simulated hypervisor."""
    lease_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 5.0
    """A network agent that was not heard of for so long is down: routers leave its host, where it has stopped them."""
    sweep_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 10.0
    """How often an agent looks at everything on its host, and puts right what somebody else changed."""
    fabric: str = ""
    """This host's interface, or address, at which it takes tunnels from others. Empty: the hosts of this machine are
    network namespaces of it, joined by a bridge."""
    interfaces: dict[str, str] = msgspec.field(default_factory=dict)
    """Physical network → the interface that leads there, which its flat network has for itself: `external = "eth1"`."""
    physical_networks: Annotated[str, Meta(pattern=r"^\s*([\w.-]+(:\d{1,4}:\d{1,4})?\s*(,\s*|$))*$")] = "external"
    """Physical networks that flat and VLAN networks may lie on, by commas, besides those that hosts say they have. Each
    may name the VLAN ids that are picked for who names none: `physnet1:100:199`."""
    vxlan_ids: Annotated[str, Meta(pattern=r"^\d{1,8}:\d{1,8}$")] = "1:16777215"
    """First and last VXLAN id that networks are given."""


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this machine's hosts give to guests for themselves."""

    dedicated_cpus: str = ""
    """CPUs that are for one guest at a time (`2-15,^8`), as PCPU in placement; all others are shared, as VCPU."""
    devices: tuple[str, ...] = ()
    """PCI devices that guests may be given: `8086:154d` (vendor and product), or one address, `0000:01:00.0`. A
    simulated host has one device for each, so that `8086:154d` may stand here twice."""
    simulated_cells: Annotated[int, Meta(ge=0, le=64)] = 0
    """NUMA nodes that a simulated host has."""
    simulated_threads: Annotated[int, Meta(ge=1, le=8)] = 1
    """Threads of each of its cores."""
    simulated_pages: dict[str, str] = {}
    """Its large pages in each NUMA node: size in KiB → how many."""


Limit = Annotated[int, Meta(ge=-1, le=2**31 - 1)]


class NetworkQuota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a project may have in networking when nobody said otherwise; -1 is unlimited."""

    network: Limit = 100
    subnet: Limit = 100
    subnetpool: Limit = -1
    port: Limit = 500
    router: Limit = 10
    floatingip: Limit = 50
    security_group: Limit = 10
    security_group_rule: Limit = 100
    rbac_policy: Limit = 10
    trunk: Limit = -1
    vpnservice: Limit = -1
    ikepolicy: Limit = -1
    ipsecpolicy: Limit = -1
    ipsec_site_connection: Limit = -1
    endpoint_group: Limit = -1


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an operator can choose. Units last."""

    home: Path
    """Where everything of this cloud lives: database, images, guests, logs, keys."""
    listen: str = "127.0.0.1:8774"
    """`host:port` of the API."""
    public_url: str = ""
    """How clients reach the API, in the catalog and in links; empty: `http://` and `listen`."""
    allowed_origins: tuple[str, ...] = ()
    """Origins (`https://dashboard.example.org`) whose web pages may call the API from a browser; `*`: all."""
    metrics_listen: str = ""
    """`host:port` where a role without the API shows /metrics and /healthcheck; empty: on a unix socket only."""
    region: Annotated[str, Meta(min_length=1, max_length=255)] = "RegionOne"
    host_name: Annotated[str, Meta(min_length=1, max_length=255)] = msgspec.field(default_factory=socket.gethostname)
    """This machine's name as a hypervisor host."""

    postgres: str = EMBEDDED
    """`embedded`, or a `postgresql://` URL."""
    bus: str = MEMORY
    """`memory` (one process), an `amqp://` URL, or `rabbitmq`: one on this machine, which `up` starts."""
    hypervisor: Literal["auto", "libvirt", "simulated", "none"] = "auto"
    """`auto`: libvirt where it works, else simulated."""
    libvirt_uri: str = "qemu:///system"
    hosts: Annotated[int, Meta(ge=1, le=10_000)] = 1
    """How many hosts this machine plays. Those of libvirt are network namespaces."""

    console_address: Annotated[str, Meta(min_length=1, max_length=255)] = "127.0.0.1"
    """This host's address at which the API fetches screens and serial lines of its guests, by TLS; any port."""
    console_token_seconds: Annotated[int, Meta(ge=5, le=86_400)] = 600
    """How long the URL of a console may be opened; it can be once."""
    novnc: Path = Path("/usr/share/novnc")
    """Where noVNC is installed."""

    token_lifetime_seconds: Annotated[int, Meta(ge=60, le=31_536_000)] = 3600
    lease_seconds: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    """A host that was not heard of for so long is down; its agent fences itself before."""
    fence: bool = False
    """A host whose lease lapses pauses its guests, so that they may run elsewhere; they go on when it is back."""
    fence_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    """How long that may take: nothing of a lost host runs elsewhere before. An agent or its watchdog is done within two
    seconds; the rest is for a watchdog that was killed with its agent and is started again."""
    recovery: Literal["none", "evacuate"] = "none"
    """What becomes of servers whose host is lost; an aggregate's `cumulog:recovery` says it for its hosts. `evacuate`:
    they are built anew on other hosts, if theirs fences itself (`fence`)."""
    recovery_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long a lost host may come back before its servers are built elsewhere; `fence_seconds` at least."""
    drift: Literal["report", "heal"] = "report"
    """What becomes of differences between servers, claims, ports and hosts: `cumulog drift` tells of them, or they are
    healed, too, every `drift_seconds`, as far as nobody need be asked."""
    drift_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    build_deadline_seconds: Annotated[int, Meta(ge=10, le=86_400)] = 900
    """A server that is not ACTIVE by then is tried elsewhere or ends in ERROR."""
    resize_confirm_window: Annotated[float, Meta(ge=0, le=2_592_000)] = 0
    """Seconds after which a resized server is taken to be confirmed; 0: only somebody confirms it."""
    allow_resize_to_same_host: bool = True
    """A server may become of another flavor where it is."""
    shelved_offload_time: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = 0
    """How many seconds a shelved server stays on its host before that gives everything of it back; -1: for ever."""
    reclaim_instance_interval: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """How many seconds a deleted server can be restored; 0: not at all."""
    shared_storage: Path | None = None
    """A folder that all hosts see, for guests' files and images: then nothing is copied when a server moves."""
    database_connections: Annotated[int, Meta(ge=5, le=1000)] = 8
    """PostgreSQL connections of one process, at most."""
    body_limit_bytes: Annotated[int, Meta(ge=1024)] = 2 * 1024 * 1024
    """The largest JSON body; uploads of images are not bodies in this sense."""
    image_limit_bytes: Annotated[int, Meta(ge=1)] = 1 << 40
    """The largest image that may be uploaded."""
    page_limit: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """The most items one page of a list holds."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON otherwise."""

    scheduler: Scheduler = msgspec.field(default_factory=Scheduler)
    network: Networking = msgspec.field(default_factory=Networking)
    hardware: Hardware = msgspec.field(default_factory=Hardware)
    network_quota: NetworkQuota = msgspec.field(default_factory=NetworkQuota)
    policy: dict[str, str] = msgspec.field(default_factory=dict)
    """Policy rule → check, over the built-in ones: `"os_compute_api:servers:create" = "role:builder"`."""

    @property
    def listen_host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def url(self) -> str:
        """How clients reach the API, without a slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.listen_host, self.listen.rpartition(":")[0])
        return f"http://{host}:{self.listen_port}"

    @property
    def needs_watchdog(self) -> bool:
        """Whether there are guests that must stand still and outlive their agent. Pretended ones do not."""
        return self.fence and self.hypervisor == "libvirt"

    @property
    def log_folder(self) -> Path:
        return self.home / "log"

    @property
    def run_folder(self) -> Path:
        return self.home / "run"


def load(environment: Mapping[str, str] | None = None, **over: Any) -> Settings:
    """The settings in force. `over`: values of the command line, which win over all. Raises ConfigurationError."""
    environment = os.environ if environment is None else environment
    path = config_path(environment)
    named = "CUMULOG_CONFIG" in environment
    values: dict[str, Any] = {}
    for key, value in _read(path, required=named).items():
        values |= _checked(key, value, str(path))
    for key in (*_FIELDS, *_TABLE_KEYS):
        name = "CUMULOG_" + key.replace(".", "_").upper()
        if environment.get(name):
            values = _merged(values, _checked(key, environment[name], name, text=True))
    for key, value in over.items():
        if value is not None:
            values = _merged(values, _checked(key, value, f"--{key.replace('_', '-')}"))
    values.setdefault("home", default_home(environment))
    settings = Settings(**values)
    return msgspec.structs.replace(settings, home=settings.home.expanduser().absolute())


def config_path(environment: Mapping[str, str] | None = None) -> Path:
    """The TOML file: `CUMULOG_CONFIG`, else `<home>/cumulog.toml`, whether it is there or not."""
    environment = os.environ if environment is None else environment
    if environment.get("CUMULOG_CONFIG"):
        return Path(environment["CUMULOG_CONFIG"]).expanduser()
    return default_home(environment) / "cumulog.toml"


def default_home(environment: Mapping[str, str] | None = None) -> Path:
    """`CUMULOG_HOME`, else /var/lib/cumulog for root and ~/.local/share/cumulog for everybody else."""
    environment = os.environ if environment is None else environment
    if environment.get("CUMULOG_HOME"):
        return Path(environment["CUMULOG_HOME"]).expanduser().absolute()
    return Path("/var/lib/cumulog") if os.geteuid() == 0 else Path("~/.local/share/cumulog").expanduser()


_FIELDS: dict[str, Any] = {
    key: kind for key, kind in get_type_hints(Settings, include_extras=True).items() if key != "policy"
}
_TABLES: dict[str, type[msgspec.Struct]] = {
    "scheduler": Scheduler,
    "network": Networking,
    "hardware": Hardware,
    "network_quota": NetworkQuota,
}
_TABLE_FIELDS: dict[str, dict[str, Any]] = {
    name: get_type_hints(table, include_extras=True) for name, table in _TABLES.items()
}
_TABLE_KEYS = tuple(f"{name}.{key}" for name, fields in _TABLE_FIELDS.items() for key in fields)
for _name in _TABLES:
    del _FIELDS[_name]


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    """The file's keys, those of the tables as `table.key`."""
    try:
        tree = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"CUMULOG_CONFIG names {path}, and there is no such file") from None
        return {}
    except PermissionError:
        raise ConfigurationError(f"{path} may not be read by this user; chown or chmod it") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    return tree


def _checked(key: str, value: Any, origin: str, *, text: bool = False) -> dict[str, Any]:
    """{key: the value in its type}, tables as structs."""
    if key in _TABLES:
        fields = _TABLE_FIELDS[key]
        if not isinstance(value, dict):
            raise ConfigurationError(f"{key} (from {origin}) must be a table: write [{key}]")
        table: dict[str, Any] = {}
        for name, item in value.items():
            if name not in fields:
                raise ConfigurationError(_unknown(f"{key}.{name}", origin, [f"{key}.{known}" for known in fields]))
            table[name] = _converted(f"{key}.{name}", item, fields[name], origin, text=text)
        return {key: _TABLES[key](**table)}
    if key in _TABLE_KEYS:
        table_name, _, name = key.partition(".")
        return {key: _converted(key, value, _TABLE_FIELDS[table_name][name], origin, text=text)}
    if key == "policy":
        return {"policy": _converted(key, value, dict[str, str], origin, text=text)}
    if key not in _FIELDS:
        raise ConfigurationError(_unknown(key, origin, [*_FIELDS, *_TABLES, "policy"]))
    checked = _converted(key, value, _FIELDS[key], origin, text=text)
    _CHECKS.get(key, _anything)(checked, f"{key} (from {origin})")
    return {key: checked}


def _merged(values: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in more.items():
        table, _, name = key.partition(".")
        if name:
            merged[table] = msgspec.structs.replace(merged.get(table, _TABLES[table]()), **{name: value})
        else:
            merged[key] = value
    return merged


def _converted(key: str, value: Any, kind: Any, origin: str, *, text: bool) -> Any:
    if kind is Path:
        if not isinstance(value, str | Path) or not str(value):
            raise ConfigurationError(f"{key} (from {origin}) must be a path, not {value!r}")
        return Path(value)
    try:
        if text and kind == tuple[str, ...]:
            value = tuple(part.strip() for part in value.split(",") if part.strip())
        if text and kind == dict[str, str]:
            value = dict(part.strip().partition("=")[::2] for part in value.split(",") if part.strip())
        return msgspec.convert(value, kind, strict=not text)
    except msgspec.ValidationError as error:
        choices = get_args(kind) if str(kind).startswith("typing.Literal") else ()
        wanted = f"must be one of {', '.join(choices)}" if choices else f"is wrong: {error}"
        raise ConfigurationError(f"{key} (from {origin}) {wanted}; it is {value!r}") from None


def _unknown(key: str, origin: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known))}"
    return f"{key} (from {origin}) is no setting of Cumulog{hint}"


def _anything(value: Any, what: str) -> None:
    """Its type is all that is asked of it."""


def _address(value: str, what: str) -> None:
    host, colon, port = value.rpartition(":")
    if not host or not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"{what} must be host:port, such as 127.0.0.1:8774; it is {value!r}")


def _public_url(value: str, what: str) -> None:
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or not parts.netloc):
        raise ConfigurationError(f"{what} must be an http:// or https:// URL; it is {value!r}")


def _postgres(value: str, what: str) -> None:
    if value != EMBEDDED and not value.startswith(("postgresql://", "postgres://")):
        raise ConfigurationError(f'{what} must be "embedded" or a postgresql:// URL; it is {value!r}')


def _bus(value: str, what: str) -> None:
    if value not in {MEMORY, RABBITMQ} and not value.startswith(("amqp://", "amqps://")):
        raise ConfigurationError(f'{what} must be "memory", "rabbitmq" or an amqp:// URL; it is {value!r}')


_CHECKS: dict[str, Callable[[Any, str], None]] = {
    "metrics_listen": lambda value, what: _address(value, what) if value else None,
    "listen": _address,
    "public_url": _public_url,
    "postgres": _postgres,
    "bus": _bus,
}
