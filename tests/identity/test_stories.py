"""What Identity's things allow, each on its own stream."""

from datetime import UTC, datetime

from handlers.identity.catalog import REGIONS
from handlers.identity.credential import APPLICATION_CREDENTIALS
from handlers.identity.domain import DOMAINS
from handlers.identity.grant import GRANTS
from handlers.identity.project import PROJECTS
from handlers.identity.revocation import REVOCATIONS
from handlers.identity.role import ROLES
from handlers.identity.signing import SIGNING_KEYS
from handlers.identity.user import USERS
from schema.identity.catalog import CreateRegion, RegionCreated, RegionDeleted
from schema.identity.credential import (
    ApplicationCredentialCreated,
    ApplicationCredentialDeleted,
    CreateApplicationCredential,
    DeleteApplicationCredential,
)
from schema.identity.domain import DeleteDomain, DomainCreated, DomainDeleted, DomainUpdated, UpdateDomain
from schema.identity.grant import GrantRole, RevokeAllRoles, RevokeRole, RoleGranted, RoleRevoked
from schema.identity.project import CreateProject, ProjectCreated, ProjectUpdated, UpdateProject
from schema.identity.revocation import LapseRevocation, RevocationLapsed, Revoke, Revoked
from schema.identity.role import DeleteRole, ImplyRole, RoleCreated, RoleImplied, RoleUpdated, UpdateRole
from schema.identity.signing_key import (
    ForgetSigningKey,
    RetireSigningKey,
    SigningKeyForgotten,
    SigningKeyMade,
    SigningKeyRetired,
)
from schema.identity.user import (
    DeleteUser,
    JoinGroup,
    LeaveGroup,
    SetPassword,
    UpdateUser,
    UserCreated,
    UserDeleted,
    UserJoinedGroup,
    UserLeftGroup,
    UserPasswordSet,
    UserUpdated,
)
from tests.story import Story

AT = datetime(2030, 1, 1, tzinfo=UTC)

domain, project, user = Story(DOMAINS), Story(PROJECTS), Story(USERS)
role, grant, region = Story(ROLES), Story(GRANTS), Story(REGIONS)
credential, revocation, key = Story(APPLICATION_CREDENTIALS), Story(REVOCATIONS), Story(SIGNING_KEYS)

house = DomainCreated(name="house")
anna = UserCreated(name="anna", domain_id="default", extra={"email": "a@example.org"})
kitchen = ProjectCreated(name="kitchen", domain_id="default", ancestors=("default",))
locked = RoleCreated(name="admin", options={"immutable": True})
granted = RoleGranted(actor="user", target="project", role_id="r1")


def test_an_enabled_domain_cannot_be_deleted():
    domain.given(house).when(DeleteDomain()).refused("disable it first")


def test_a_disabled_domain_can():
    domain.given(house, DomainUpdated(enabled=False)).when(DeleteDomain()).then(DomainDeleted())


def test_only_what_changes_is_written():
    domain.given(house).when(UpdateDomain(name="house", enabled=False)).then(DomainUpdated(enabled=False))


def test_extra_attributes_change_one_by_one():
    changes = UpdateUser(extra={"email": "a@example.org", "phone": "1"})
    user.given(anna).when(changes).then(UserUpdated(extra={"phone": "1"}))


def test_what_is_not_there_cannot_change():
    user.given().when(UpdateUser(name="bert")).refused("Could not find user")
    project.given().when(UpdateProject(name="x")).refused("Could not find project")


def test_another_project_of_that_id_is_a_conflict():
    other = CreateProject(name="cellar", domain_id="default", ancestors=("default",))
    project.given(kitchen).when(other).refused("Duplicate entry")


def test_a_project_is_renamed():
    project.given(kitchen).when(UpdateProject(name="cellar")).then(ProjectUpdated(name="cellar"))


def test_a_user_joins_and_leaves_a_group():
    user.given(anna).when(JoinGroup(group_id="g")).then(UserJoinedGroup(group_id="g"))
    user.given(anna, UserJoinedGroup(group_id="g")).when(LeaveGroup(group_id="g")).then(UserLeftGroup(group_id="g"))


def test_a_password_is_a_name_in_the_vault():
    user.given(anna).when(SetPassword(password_id="password/1")).then(UserPasswordSet(password_id="password/1"))


def test_a_user_goes():
    user.given(anna).when(DeleteUser()).then(UserDeleted())


def test_an_immutable_role_only_lets_itself_be_unlocked():
    role.given(locked).when(UpdateRole(name="boss")).refused("immutable")
    role.given(locked).when(DeleteRole()).refused("immutable")
    unlock = UpdateRole(options={"immutable": False})
    role.given(locked).when(unlock).then(RoleUpdated(options={"immutable": False}))


def test_a_role_implies_others_but_not_itself():
    role.given(locked).when(ImplyRole(role_id="r2")).then(RoleImplied(role_id="r2"))


def test_a_grant_ends_with_its_last_role_and_may_begin_again():
    again = GrantRole(actor="user", target="project", role_id="r1")
    grant.given(granted).when(RevokeRole(role_id="r1")).then(RoleRevoked(role_id="r1"))
    grant.given(granted, RoleRevoked(role_id="r1")).when(again).then(granted)


def test_inherited_and_plain_roles_are_told_apart():
    inherited = RoleGranted(actor="user", target="project", role_id="r1", inherited=True)
    grant.given(granted).when(GrantRole(actor="user", target="project", role_id="r1", inherited=True)).then(inherited)
    both = grant.given(granted, inherited).when(RevokeAllRoles())
    both.then(RoleRevoked(role_id="r1"), RoleRevoked(role_id="r1", inherited=True))


def test_a_region_may_come_back():
    region.given(RegionCreated(), RegionDeleted()).when(CreateRegion(description="x")).then(
        RegionCreated(description="x")
    )


def test_an_application_credential_is_made_once():
    made = ApplicationCredentialCreated(user_id="u", project_id="p", name="ci", secret_id="s", roles=("r",))
    other = CreateApplicationCredential(user_id="u", project_id="p", name="other", secret_id="s", roles=("r",))
    credential.given(made).when(other).refused("there already")
    credential.given(made).when(DeleteApplicationCredential()).then(ApplicationCredentialDeleted())


def test_revoking_counts_once_per_reason():
    first = Revoked(mark="a")
    revocation.given().when(Revoke(mark="a")).then(first)
    revocation.given(first).when(Revoke(mark="b")).then(Revoked(mark="b"))
    revocation.given(first).when(LapseRevocation()).then(RevocationLapsed())


def test_a_signing_key_is_retired_before_it_is_forgotten():
    made = SigningKeyMade(public_key="p", secret_id="s", rotate_at=AT)
    retired = SigningKeyRetired(forget_at=AT)
    key.given(made).when(ForgetSigningKey()).refused("in use")
    key.given(made).when(RetireSigningKey(forget_at=AT)).then(retired)
    key.given(made, retired).when(ForgetSigningKey()).then(SigningKeyForgotten())
