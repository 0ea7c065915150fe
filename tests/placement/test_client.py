"""Placement through openstacksdk."""

import asyncio

import openstack
import pytest
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

pytestmark = pytest.mark.filterwarnings("default")
"""What the client warns of itself is not ours."""


def _session(url, token):
    auth = Token(f"{url}/placement", token)
    cloud = openstack.connection.Connection(session=Session(auth), placement_endpoint_override=f"{url}/placement")
    placement = cloud.placement
    provider = placement.create_resource_provider(name="host-1")
    assert [it.name for it in placement.resource_providers(name="host-1")] == ["host-1"]
    placement.create_resource_provider_inventory(provider, "VCPU", total=8, allocation_ratio=4.0)
    [inventory] = placement.resource_provider_inventories(provider)
    assert (inventory.resource_class, inventory.total) == ("VCPU", 8)
    placement.create_trait(name="CUSTOM_FAST")
    assert "CUSTOM_FAST" in {it.name for it in placement.traits(name="startswith:CUSTOM")}
    placement.create_resource_class(name="CUSTOM_IRON")
    assert "CUSTOM_IRON" in {it.name for it in placement.resource_classes()}
    provider = placement.get_resource_provider(provider.id)
    placement.set_resource_provider_aggregates(provider, "21d7c4aa-d0b6-41b1-8513-12a1eac17c0c")
    placement.delete_resource_provider_inventory(inventory, provider, ignore_missing=False)
    placement.delete_resource_provider(provider, ignore_missing=False)
    assert list(placement.resource_providers()) == []
    cloud.close()


async def test_an_operators_session(placement):
    await asyncio.to_thread(_session, placement.served.url, placement.token)
