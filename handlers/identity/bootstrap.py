"""What every cloud begins with: the default domain, two projects, five roles, the admin, the catalog.

All of it has ids that follow from its name, so bootstrapping twice, or from two processes at once, changes nothing.
What an operator changed or deleted since stays as they left it; only our own endpoints follow the public URL.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog

from bus.cloud import Cloud
from bus.execute import Wish
from bus.log import Document
from handlers.identity.catalog import ENDPOINTS, REGIONS, SERVICES
from handlers.identity.domain import DEFAULT, DOMAINS
from handlers.identity.grant import GRANTS
from handlers.identity.login import login
from handlers.identity.project import PROJECTS
from handlers.identity.role import ROLES
from handlers.identity.signing import signing
from handlers.identity.user import USERS
from schema.identity.catalog import (
    CreateEndpoint,
    CreateRegion,
    CreateService,
    Interface,
    UpdateEndpoint,
)
from schema.identity.domain import CreateDomain
from schema.identity.grant import SYSTEM, GrantRole, Target, grant_id
from schema.identity.project import CreateProject
from schema.identity.role import CreateRole, ImplyRole
from schema.identity.user import USER, CreateUser
from schema.refusal import Conflict

log = structlog.get_logger()

ADMIN = "admin"
IMPLIED = {"admin": "manager", "manager": "member", "member": "reader"}
ROLE_NAMES = ("admin", "manager", "member", "reader", "service")
PROJECT_NAMES = {"admin": "Where the cloud's administrators work.", "service": "Where the cloud's own services work."}
INTERFACES: tuple[Interface, ...] = ("public", "internal", "admin")


class Offered(msgspec.Struct, frozen=True):
    """A service of the catalog. `path` follows the cloud's public URL."""

    type: str
    name: str
    path: str


OFFERED = (
    Offered("identity", "keystone", "/identity"),
    Offered("compute", "nova", "/compute/v2.1"),
    Offered("placement", "placement", "/placement"),
    Offered("image", "glance", "/image"),
    Offered("network", "neutron", "/networking"),
)


def named_id(what: str, name: str) -> str:
    """The id that a thing of this name has in every cloud."""
    return uuid.uuid5(_NAMESPACE, f"{what}/{name}").hex


async def bootstrap(cloud: Cloud, admin_password: str, offered: Iterable[Offered] = OFFERED) -> None:
    """Make what is missing. The password counts only when the admin is made: later it is the admin's own."""
    wishes = [*_house(), *_roles(), *_projects(), *_grants(), *_region(cloud.settings.region)]
    wishes += _catalog(cloud.settings.region, cloud.settings.url, offered)
    known = await cloud.log.load([wish.stream for wish in wishes] + [USER.stream(named_id("user", ADMIN))])
    await _do(cloud, wishes, known)
    if USER.stream(named_id("user", ADMIN)) not in known:
        await _make_admin(cloud, admin_password)
    await signing(cloud).prepare()


async def _make_admin(cloud: Cloud, password: str) -> None:
    id = named_id("user", ADMIN)
    secret = await login(cloud).passwords.seal(f"user/{id}", password)
    command = CreateUser(
        name=ADMIN, domain_id=DEFAULT, default_project_id=named_id("project", ADMIN), password_id=secret.id
    )
    with contextlib.suppress(Conflict):  # another process made it first
        await cloud.executor.execute(Wish(USERS, id, command, (secret,)))


async def _do(cloud: Cloud, wishes: Sequence[Wish], known: Mapping[str, Document]) -> None:
    """Create what never was; move our endpoints to where the cloud is reached now."""
    due = []
    for wish in wishes:
        document = known.get(wish.stream)
        if document is None:
            due.append(wish)
        elif isinstance(wish.command, CreateEndpoint) and document.state.living:
            due.append(Wish(ENDPOINTS, wish.id, UpdateEndpoint(url=wish.command.url)))
    if not due:
        return
    try:
        await cloud.executor.execute(*due)
    except Conflict:
        # Somebody holds one of the names, or another process is at it too: each on its own, then.
        for wish in due:
            with contextlib.suppress(Conflict):
                await cloud.executor.execute(wish)
    log.info("bootstrapped", made=len(due))


def _house() -> list[Wish]:
    return [Wish(DOMAINS, DEFAULT, CreateDomain(name="Default", description="The default domain"))]


def _roles() -> list[Wish]:
    made = [
        Wish(ROLES, named_id("role", name), CreateRole(name=name, options={"immutable": True})) for name in ROLE_NAMES
    ]
    return made + [
        Wish(ROLES, named_id("role", prior), ImplyRole(role_id=named_id("role", implied)))
        for prior, implied in IMPLIED.items()
    ]


def _projects() -> list[Wish]:
    return [
        Wish(
            PROJECTS,
            named_id("project", name),
            CreateProject(name=name, domain_id=DEFAULT, ancestors=(DEFAULT,), description=description),
        )
        for name, description in PROJECT_NAMES.items()
    ]


def _grants() -> list[Wish]:
    targets: list[tuple[Target, str]] = [
        ("project", named_id("project", ADMIN)),
        ("domain", DEFAULT),
        ("system", SYSTEM),
    ]
    return [
        Wish(
            GRANTS,
            grant_id(named_id("user", ADMIN), id),
            GrantRole(actor="user", target=target, role_id=named_id("role", ADMIN)),
        )
        for target, id in targets
    ]


def _region(name: str) -> list[Wish]:
    return [Wish(REGIONS, name, CreateRegion())]


def _catalog(region: str, url: str, offered: Iterable[Offered]) -> list[Wish]:
    wishes = []
    for service in offered:
        id = named_id("service", service.type)
        wishes.append(Wish(SERVICES, id, CreateService(kind=service.type, name=service.name)))
        wishes += [
            Wish(
                ENDPOINTS,
                named_id("endpoint", f"{region}/{service.type}/{interface}"),
                CreateEndpoint(service_id=id, interface=interface, url=url + service.path, region_id=region),
            )
            for interface in INTERFACES
        ]
    return wishes


_NAMESPACE = uuid.UUID("6f70656e-7374-4b61-8b00-63756d756c6f")
