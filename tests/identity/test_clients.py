"""Identity through the clients people have: openstacksdk and the `openstack` command."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
import pytest
from keystoneauth1.exceptions import Unauthorized
from openstack import exceptions

from tests.identity.conftest import PASSWORD, Identity

pytestmark = [
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

OPENSTACK = Path(sys.executable).with_name("openstack")


def connect(identity: Identity, **auth: Any) -> openstack.connection.Connection:
    scope = {"project_name": "admin", "project_domain_id": "default"} if not auth else {}
    return openstack.connect(
        auth={
            "auth_url": f"{identity.api.url}/identity",
            "username": "admin",
            "password": PASSWORD,
            "user_domain_id": "default",
            **scope,
            **auth,
        },
        region_name="RegionOne",
        identity_api_version="3",
        load_yaml_config=False,
        load_envvars=False,
    )


async def away(work: Callable[[], None]) -> None:
    """Clients block; the server they talk to is in this loop."""
    await asyncio.to_thread(work)


async def test_a_day_of_the_sdk(identity: Identity):
    def work() -> None:
        cloud = connect(identity)
        domain = cloud.identity.create_domain(name="house", description="a house")
        project = cloud.identity.create_project(name="kitchen", domain_id=domain.id, tags=["warm"])
        child = cloud.identity.create_project(name="pantry", parent_id=project.id, domain_id=domain.id)
        user = cloud.identity.create_user(
            name="cook", password="salt", domain_id=domain.id, email="cook@example.org", default_project=project.id
        )
        group = cloud.identity.create_group(name="staff", domain_id=domain.id)
        assert cloud.identity.find_project("kitchen", domain_id=domain.id).id == project.id
        assert cloud.identity.find_user("cook", domain_id=domain.id).email == "cook@example.org"
        assert [it.name for it in cloud.identity.projects(parent_id=project.id)] == ["pantry"]
        assert [it.name for it in cloud.identity.projects(tags="warm")] == ["kitchen"]
        cloud.identity.add_user_to_group(user, group)
        assert cloud.identity.check_user_in_group(user, group)
        assert [it.name for it in cloud.identity.group_users(group)] == ["cook"]
        member = cloud.identity.find_role("member")
        cloud.identity.assign_project_role_to_group(project, group, member)
        assert cloud.identity.validate_group_has_project_role(project, group, member)
        cloud.identity.assign_domain_role_to_user(domain, user, member)
        cloud.identity.assign_system_role_to_user(user, member, "all")
        direct = list(cloud.identity.role_assignments(user_id=user.id))
        assert {next(iter(it.scope)) for it in direct} == {"domain", "system"}
        effective = list(cloud.identity.role_assignments(user_id=user.id, effective=True, scope_project_id=project.id))
        assert len(effective) == 2  # member, and reader by it
        mine = connect(identity, username="cook", password="salt", user_domain_id=domain.id, project_id=project.id)
        assert mine.current_project_id == project.id
        assert [it.name for it in mine.identity.user_projects(user)] == ["kitchen"]
        with pytest.raises(exceptions.ForbiddenException):
            mine.identity.create_user(name="mouse")
        credential = mine.identity.create_application_credential(user, name="robot")
        assert credential.secret
        assert [it.name for it in mine.identity.application_credentials(user)] == ["robot"]
        cloud.identity.update_user(user, is_enabled=False)
        with pytest.raises(Unauthorized):
            list(mine.identity.user_projects(user))
        cloud.identity.unassign_project_role_from_group(project, group, member)
        cloud.identity.remove_user_from_group(user, group)
        with pytest.raises(exceptions.ForbiddenException):
            cloud.identity.delete_project(project)
        cloud.identity.delete_project(child)
        cloud.identity.delete_project(project)
        with pytest.raises(exceptions.ForbiddenException):
            cloud.identity.delete_domain(domain)
        cloud.identity.update_domain(domain, is_enabled=False)
        cloud.identity.delete_domain(domain)
        assert cloud.identity.find_user("cook", domain_id=domain.id) is None

    await away(work)


async def test_the_catalog_through_the_sdk(identity: Identity):
    def work() -> None:
        cloud = connect(identity)
        assert {it.type for it in cloud.identity.services()} == {"identity", "compute", "placement", "image", "network"}
        service = cloud.identity.create_service(name="soup", type="kitchen", description="hot")
        region = cloud.identity.create_region(id="east", description="where the sun rises")
        endpoint = cloud.identity.create_endpoint(
            service_id=service.id, interface="public", url="http://soup/$(project_id)s", region_id=region.id
        )
        session = connect(identity).session
        found = session.get_endpoint(service_type="kitchen", interface="public", region_name="east")
        assert found == f"http://soup/{session.get_project_id()}"
        cloud.identity.update_endpoint(endpoint, url="http://broth/")
        assert cloud.identity.get_endpoint(endpoint.id).url == "http://broth/"
        with pytest.raises(exceptions.ForbiddenException):
            cloud.identity.delete_region(region)
        cloud.identity.delete_service(service)
        cloud.identity.delete_region(region)
        with pytest.raises(exceptions.NotFoundException):
            cloud.identity.get_endpoint(endpoint.id)

    await away(work)


async def test_the_openstack_command(identity: Identity):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(identity.api.cloud.settings.home),
        "OS_AUTH_URL": f"{identity.api.url}/identity/v3",
        "OS_USERNAME": "admin",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "admin",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
        "OS_IDENTITY_API_VERSION": "3",
    }

    async def run(*words: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            str(OPENSTACK),
            *words,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await process.communicate()
        assert process.returncode == 0, error.decode()
        return json.loads(out) if out.strip() else None

    token = await run("token", "issue", "-f", "json")
    assert token["project_id"]
    assert {it["Type"] for it in await run("catalog", "list", "-f", "json")} >= {"identity", "compute"}
