"""Who has which roles where: grants to a user and its groups, on the target and, inherited, on what it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from bus.cloud import Cloud
from bus.documents import Where
from bus.log import Document
from handlers.identity.role import with_implied
from schema.identity.domain import DOMAIN
from schema.identity.grant import GRANT, SYSTEM, Grant, grant_id
from schema.identity.project import PROJECT
from schema.identity.role import ROLE, Role
from schema.identity.user import USER, User


class Access(msgspec.Struct, frozen=True):
    """What somebody may on a target."""

    roles: tuple[Role, ...] = ()
    """Implied ones included."""
    grants: tuple[str, ...] = ()
    """Ids of the grants they come from."""
    groups: tuple[str, ...] = ()
    """Groups among the actors of those."""


def grant_streams(user: User, target_id: str, ancestors: Sequence[str] = ()) -> list[str]:
    """The streams that could give this user a role on that target: load them, then ask `access`."""
    actors = (user.id, *user.groups)
    return [GRANT.stream(grant_id(actor, target)) for target in (target_id, *ancestors) for actor in actors]


async def access(
    cloud: Cloud, user: User, target_id: str, documents: Mapping[str, Document], ancestors: Sequence[str] = ()
) -> Access:
    """The roles that follow from loaded grants. Inherited ones count from what the target lies in, plain ones on it."""
    direct: dict[str, None] = {}
    used: list[str] = []
    groups: list[str] = []
    for stream in grant_streams(user, target_id, ancestors):
        found = documents.get(stream)
        if found is None or not found.state.living:
            continue
        grant: Grant = found.state
        roles = grant.roles if grant.target_id == target_id else grant.inherited
        if roles:
            direct.update(dict.fromkeys(roles))
            used.append(grant.id)
            if grant.actor == "group":
                groups.append(grant.actor_id)
    return Access(tuple(await implied(cloud, direct)), tuple(used), tuple(dict.fromkeys(groups)))


async def implied(cloud: Cloud, roles: Iterable[str]) -> list[Role]:
    """Roles by id with all they imply: from memory, and from the log what another process made just now."""
    mirror, loaded = cloud.mirror(ROLE), dict[str, Role | None]()
    unknown: set[str] = set()

    def find(id: str) -> Role | None:
        found = mirror.get(id)
        if found is not None:
            return found.state  # type: ignore[no-any-return]
        if id not in loaded:
            unknown.add(id)
        return loaded.get(id)

    direct = list(roles)
    while True:
        found_roles = with_implied(direct, find)
        if not unknown:
            return found_roles
        documents = await cloud.documents.get_many(ROLE, sorted(unknown))
        loaded.update({id: documents[id].state if id in documents else None for id in unknown})
        unknown.clear()


async def roles_on(cloud: Cloud, user_id: str, project_id: str) -> tuple[Role, ...]:
    """The roles a user has on a project now, implied ones included."""
    user = (await cloud.documents.get_many(USER, [user_id])).get(user_id)
    project = (await cloud.documents.get_many(PROJECT, [project_id])).get(project_id)
    if user is None or project is None or not (user.state.living and project.state.living):
        return ()
    ancestors = project.state.ancestors
    documents = await cloud.log.load(grant_streams(user.state, project_id, ancestors))
    return (await access(cloud, user.state, project_id, documents, ancestors)).roles


async def grants_of(cloud: Cloud, user: User) -> list[Grant]:
    """Every living grant to a user or one of its groups."""
    found = await cloud.documents.find(GRANT, where=[Where("parent_id", "in", [user.id, *user.groups])], limit=None)
    return [document.state for document in found]


async def projects_of(cloud: Cloud, user: User) -> list[Document]:
    """The projects a user has a role on, directly, through groups, or inherited; in order of their names."""
    grants = await grants_of(cloud, user)
    direct = [grant.target_id for grant in grants if grant.target == "project" and grant.roles]
    above = [grant.target_id for grant in grants if grant.inherited]
    found = await cloud.documents.get_many(PROJECT, direct)
    for ancestor in above:
        below = await cloud.documents.find(PROJECT, where=[Where("ancestors", "has", ancestor)], limit=None)
        found.update({document.id: document for document in below})
    living = [document for document in found.values() if document.state.living]
    return sorted(living, key=lambda document: document.state.name)


async def domains_of(cloud: Cloud, user: User) -> list[Document]:
    """The domains a user has a role on."""
    grants = await grants_of(cloud, user)
    ids = [grant.target_id for grant in grants if grant.target == "domain" and grant.roles]
    found = await cloud.documents.get_many(DOMAIN, ids)
    return sorted((d for d in found.values() if d.state.living), key=lambda document: document.state.name)


async def has_system(cloud: Cloud, user: User) -> bool:
    """Whether a user has a role on the system."""
    return any(grant.target_id == SYSTEM and grant.roles for grant in await grants_of(cloud, user))
