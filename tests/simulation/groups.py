"""The security groups of a simulated project: made, changed, named by each other's rules, and deleted when unused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus import clock
from bus.cloud import Cloud
from bus.execute import StillHeld, Wish
from handlers.network.addressing import Picks, with_addresses
from handlers.network.default_group import default_group, rules_from_template
from handlers.network.ending import group_ended
from handlers.network.quota import giving_back, taking
from handlers.network.router import Outdated
from handlers.network.security_group import SECURITY_GROUPS, in_use, standing
from schema.network.security_group import (
    AddSecurityRules,
    CreateSecurityGroup,
    RemoveSecurityRule,
    SecurityGroup,
    SecurityRule,
    members_of,
)

if TYPE_CHECKING:
    from tests.simulation.world import World


class Groups:
    """Of one project."""

    def __init__(self, world: World, project: str) -> None:
        self._world = world
        self._project = project

    def living(self) -> list[SecurityGroup]:
        """As the log has them."""
        return [group for _, group in sorted(self._world.states(SecurityGroup).items()) if group.living]

    async def make(self, cloud: Cloud) -> None:
        id = clock.uuid4()
        rules = await rules_from_template(cloud, id, default=False)
        command = CreateSecurityGroup(name="web", project_id=self._project, rules=rules)
        await cloud.executor.execute(
            Wish(SECURITY_GROUPS, id, command),
            *(await default_group(cloud, self._project))[1],
            *await taking(cloud, self._project, "security_group", [id]),
            *await taking(cloud, self._project, "security_group_rule", [rule.id for rule in rules]),
        )

    async def change(self, cloud: Cloud) -> None:
        """A rule more, perhaps of another group's members; or one less."""
        groups = self.living()
        if not groups:
            return
        random = self._world.random
        group, other = random.choice(groups), random.choice(groups)
        if group.rules and random.random() < 0.4:
            id = random.choice(group.rules).id
            removing = Wish(SECURITY_GROUPS, group.id, RemoveSecurityRule(rule_id=id))
            await cloud.executor.execute(removing, *giving_back(self._project, "security_group_rule", [id]))
            return
        port = random.randint(1, 5)
        named = other.id if random.random() < 0.5 else None
        rule = SecurityRule(
            id=clock.uuid4(),
            direction="ingress",
            protocol="tcp",
            port_range_min=port,
            port_range_max=port,
            remote_group_id=named,
        )
        await cloud.executor.execute(
            Wish(SECURITY_GROUPS, group.id, AddSecurityRules(rules=(rule,))),
            *standing([named] if named else []),
            *await taking(cloud, self._project, "security_group_rule", [rule.id]),
        )

    async def delete(self, cloud: Cloud) -> None:
        """In use or not."""
        groups = [group for group in self.living() if not group.is_default]
        if not groups:
            return
        id = self._world.random.choice(groups).id

        async def attempt(picks: Picks) -> None:
            try:
                await cloud.executor.execute(*await group_ended(cloud, id, even_default=False))
            except StillHeld as held:
                if held.scope == members_of(id):
                    raise in_use(id) from None
                raise Outdated("named by a rule meanwhile") from None

        await with_addresses(cloud, attempt)
