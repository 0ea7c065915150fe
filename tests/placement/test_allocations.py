"""Allocations over HTTP: both sides change together, capacity holds whoever comes, candidates can be claimed."""

import asyncio

from bus import clock
from bus.documents import LIMIT
from schema.placement.consumer import CONSUMER
from schema.placement.provider import PROVIDER
from tests.placement.conftest import allocation

HOST = {"VCPU": 4, "MEMORY_MB": 4096}


async def test_what_is_allocated_shows_everywhere(placement, consumer):
    id = await placement.provider("host-1", HOST)
    assert (await placement.allocate(consumer, {id: {"VCPU": 2, "MEMORY_MB": 512}})).status == 204
    assert await placement.must(200, "GET", f"/allocations/{consumer}") == {
        "allocations": {id: {"generation": 2, "resources": {"VCPU": 2, "MEMORY_MB": 512}}},
        "project_id": "the-project",
        "user_id": "the-user",
        "consumer_generation": 1,
        "consumer_type": "INSTANCE",
    }
    usages = await placement.must(200, "GET", f"/resource_providers/{id}/usages")
    assert usages == {"resource_provider_generation": 2, "usages": {"VCPU": 2, "MEMORY_MB": 512}}
    held = await placement.must(200, "GET", f"/resource_providers/{id}/allocations")
    assert held["allocations"] == {consumer: {"resources": {"VCPU": 2, "MEMORY_MB": 512}, "consumer_generation": 1}}
    by_type = await placement.must(200, "GET", "/usages?project_id=the-project")
    assert by_type == {"usages": {"INSTANCE": {"consumer_count": 1, "VCPU": 2, "MEMORY_MB": 512}}}
    plain = await placement.must(200, "GET", "/usages?project_id=the-project&user_id=the-user", version="1.9")
    assert plain == {"usages": {"VCPU": 2, "MEMORY_MB": 512}}
    refused = await placement.ask("DELETE", f"/resource_providers/{id}")
    assert refused.json["errors"][0]["code"] == "placement.resource_provider.inuse"
    refused = await placement.ask("DELETE", f"/resource_providers/{id}/inventories/VCPU")
    assert refused.json["errors"][0]["code"] == "placement.concurrent_update"
    refused = await placement.ask("DELETE", f"/resource_providers/{id}/inventories")
    assert refused.json["errors"][0]["code"] == "placement.inventory.inuse"
    await placement.must(204, "DELETE", f"/allocations/{consumer}")
    await placement.must(404, "DELETE", f"/allocations/{consumer}")
    assert await placement.must(200, "GET", f"/allocations/{consumer}") == {"allocations": {}}


async def test_providers_are_told_in_the_order_they_were_named_in(placement, consumer):
    ids = [await placement.provider(name, HOST) for name in ("host-1", "host-2", "host-3")]
    for generation, order in enumerate((sorted(ids), sorted(ids, reverse=True), [*sorted(ids)[1:], min(ids)])):
        given = {id: {"VCPU": generation + 1} for id in order}
        answer = await placement.allocate(consumer, given, consumer_generation=generation or None)
        assert answer.status == 204
        shown = await placement.must(200, "GET", f"/allocations/{consumer}")
        assert list(shown["allocations"]) == order


async def test_more_than_there_is_cannot_be_allocated(placement, consumer):
    id = await placement.provider("host-1", {"VCPU": {"total": 4, "max_unit": 2}, "MEMORY_MB": 4096})
    for resources in ({"VCPU": 3}, {"MEMORY_MB": 4097}, {"DISK_GB": 1}):
        assert (await placement.allocate(consumer, {id: resources})).status == 409
    assert (await placement.allocate(consumer, {clock.uuid4(): {"VCPU": 1}})).status == 400
    assert (await placement.allocate(consumer, {id: {"NO_SUCH": 1}})).status == 400
    assert (await placement.allocate(consumer, {id: {"VCPU": 0}})).status == 400
    assert (await placement.allocate("not-a-uuid", {id: {"VCPU": 1}})).status == 400
    assert await placement.must(200, "GET", f"/resource_providers/{id}/allocations") == {
        "allocations": {},
        "resource_provider_generation": 1,
    }


async def test_consumer_generations_compare_and_swap(placement, consumer):
    id = await placement.provider("host-1", HOST)
    assert (await placement.allocate(consumer, {id: {"VCPU": 1}}, consumer_generation=1)).status == 409
    assert (await placement.allocate(consumer, {id: {"VCPU": 1}})).status == 204
    stale = await placement.allocate(consumer, {id: {"VCPU": 2}})
    assert (stale.status, stale.json["errors"][0]["code"]) == (409, "placement.concurrent_update")
    assert (await placement.allocate(consumer, {id: {"VCPU": 2}}, consumer_generation=1)).status == 204
    assert (await placement.allocate(consumer, {}, consumer_generation=2)).status == 204
    assert (await placement.allocate(consumer, {id: {"VCPU": 4}})).status == 204


async def test_older_shapes_of_allocations(placement, consumer):
    id = await placement.provider("host-1", HOST)
    listed = {"allocations": [{"resource_provider": {"uuid": id}, "resources": {"VCPU": 1}}]}
    path = f"/allocations/{consumer}"
    await placement.must(204, "PUT", path, listed, version="1.0")
    await placement.must(400, "PUT", path, listed, version="1.8")
    owned = {**listed, "project_id": "p", "user_id": "u"}
    await placement.must(204, "PUT", path, owned, version="1.8")
    mapped = {"allocations": {id: {"resources": {"VCPU": 2}}}, "project_id": "p", "user_id": "u"}
    await placement.must(400, "PUT", path, mapped, version="1.11")
    await placement.must(204, "PUT", path, mapped, version="1.12")
    assert (await placement.must(200, "GET", path, version="1.0"))["allocations"][id]["resources"] == {"VCPU": 2}
    await placement.must(400, "PUT", path, {**mapped, "allocations": {}}, version="1.12")


async def test_consumers_change_places_on_full_providers(placement):
    one, two = await placement.provider("one", {"VCPU": 4}), await placement.provider("two", {"VCPU": 4})
    left, right = clock.uuid4(), clock.uuid4()
    await placement.allocate(left, {one: {"VCPU": 4}})
    await placement.allocate(right, {two: {"VCPU": 4}})
    swapped = {
        left: allocation({two: {"VCPU": 4}}, consumer_generation=1),
        right: allocation({one: {"VCPU": 4}}, consumer_generation=1),
    }
    await placement.must(204, "POST", "/allocations", swapped)
    assert list((await placement.must(200, "GET", f"/resource_providers/{one}/allocations"))["allocations"]) == [right]
    too_much = {
        left: allocation({two: {"VCPU": 2}}, consumer_generation=2),
        right: allocation({one: {"VCPU": 4}, two: {"VCPU": 3}}, consumer_generation=2),
    }
    await placement.must(409, "POST", "/allocations", too_much)
    assert (await placement.must(200, "GET", f"/allocations/{left}"))["consumer_generation"] == 2


async def test_whoever_comes_at_once_capacity_holds(placement):
    id = await placement.provider("host-1", {"VCPU": 10})
    consumers = [clock.uuid4() for _ in range(30)]
    answers = await asyncio.gather(*(placement.allocate(it, {id: {"VCPU": 1}}) for it in consumers))
    assert sorted(answer.status for answer in answers) == [204] * 10 + [409] * 20
    usages = await placement.must(200, "GET", f"/resource_providers/{id}/usages")
    assert usages["usages"] == {"VCPU": 10}
    documents = placement.served.cloud.documents
    holding = await documents.find(CONSUMER, limit=LIMIT)
    assert len(holding) == 10
    provider = (await documents.get(PROVIDER, id)).state
    assert set(provider.claims) == {document.id for document in holding}


async def test_candidates_can_be_claimed_as_they_stand(placement, consumer):
    id = await placement.provider("host-1", HOST)
    await placement.provider("host-2", {"VCPU": 1})
    found = await placement.must(200, "GET", "/allocation_candidates?resources=VCPU:2,MEMORY_MB:64")
    assert found["allocation_requests"] == [
        {"allocations": {id: {"resources": {"VCPU": 2, "MEMORY_MB": 64}}}, "mappings": {"": [id]}}
    ]
    assert found["provider_summaries"] == {
        id: {
            "resources": {"VCPU": {"capacity": 4, "used": 0}, "MEMORY_MB": {"capacity": 4096, "used": 0}},
            "traits": [],
            "parent_provider_uuid": None,
            "root_provider_uuid": id,
        }
    }
    body = allocation({}) | found["allocation_requests"][0]
    await placement.must(204, "PUT", f"/allocations/{consumer}", body)
    taken = await placement.must(200, "GET", "/allocation_candidates?resources=VCPU:3")
    assert taken == {"allocation_requests": [], "provider_summaries": {}}


async def test_candidates_from_trees_and_sharing_providers(placement):
    pool = clock.uuid4()
    host = await placement.provider("host-1", {"MEMORY_MB": 4096}, aggregates=[pool])
    node = await placement.provider("node-1", {"VCPU": 4}, parent=host, traits=["HW_NUMA_ROOT"])
    disk = await placement.provider("disk", {"DISK_GB": 100}, traits=["MISC_SHARES_VIA_AGGREGATE"], aggregates=[pool])

    async def requests(query, version="1.39"):
        found = await placement.must(200, "GET", f"/allocation_candidates?{query}", version=version)
        return [it["allocations"] for it in found["allocation_requests"]]

    asked = "resources=VCPU:1,MEMORY_MB:64,DISK_GB:10"
    [one] = await requests(asked)
    assert {id: it["resources"] for id, it in one.items()} == {
        host: {"MEMORY_MB": 64},
        node: {"VCPU": 1},
        disk: {"DISK_GB": 10},
    }
    assert await requests(asked, version="1.28") == []
    assert await requests(f"{asked}&required=HW_NUMA_ROOT") == [one]
    assert await requests(f"{asked}&required=!HW_NUMA_ROOT") == []
    assert await requests(f"resources=DISK_GB:10&in_tree={host}") == []
    assert await requests("resources=VCPU:1&root_required=HW_NUMA_ROOT") == []


async def test_candidates_for_several_groups(placement):
    host = await placement.provider("host-1", HOST)
    cards = [await placement.provider(f"card-{n}", {"VGPU": 2}, parent=host) for n in (1, 2)]

    async def requests(query):
        return (await placement.must(200, "GET", f"/allocation_candidates?{query}"))["allocation_requests"]

    asked = "resources=VCPU:1&resources_A=VGPU:1&resources_B=VGPU:1"
    apart = await requests(f"{asked}&group_policy=isolate")
    assert {tuple(it["mappings"][suffix][0] for suffix in ("_A", "_B")) for it in apart} == {
        (cards[0], cards[1]),
        (cards[1], cards[0]),
    }
    together = await requests(f"{asked}&group_policy=none")
    assert len(together) == 4
    assert {"resources": {"VGPU": 2}} in [it["allocations"].get(cards[0]) for it in together]
    assert len(await requests(f"{asked}&group_policy=none&limit=1")) == 1
    await placement.must(400, "GET", f"/allocation_candidates?{asked}")
    await placement.must(400, "GET", "/allocation_candidates?required=HW_NUMA_ROOT")
    await placement.must(400, "GET", "/allocation_candidates?resources=VCPU:1&limit=0")
    subtree = await requests(f"{asked}&group_policy=none&same_subtree=_A,_B")
    assert len(subtree) == 2


async def test_a_reshape_moves_inventory_and_claims_together(placement, consumer):
    host = await placement.provider("host-1", {"VCPU": 4, "VGPU": 2})
    card = await placement.provider("card-1", parent=host)
    await placement.allocate(consumer, {host: {"VCPU": 1, "VGPU": 2}})
    service = await placement.served.token("service")
    body = {
        "inventories": {
            host: {"resource_provider_generation": 2, "inventories": {"VCPU": {"total": 4}}},
            card: {"resource_provider_generation": 0, "inventories": {"VGPU": {"total": 2}}},
        },
        "allocations": {consumer: allocation({host: {"VCPU": 1}, card: {"VGPU": 2}}, consumer_generation=1)},
    }
    answer = await placement.ask("POST", "/reshaper", body, token=service)
    assert (answer.status, answer.body) == (204, b"")
    assert (await placement.must(200, "GET", f"/resource_providers/{card}/usages"))["usages"] == {"VGPU": 2}
    assert (await placement.must(200, "GET", f"/resource_providers/{host}/usages"))["usages"] == {"VCPU": 1}
    assert (await placement.ask("POST", "/reshaper", body, token=service)).status == 409


async def test_what_moves_the_generation_of_a_provider(placement, consumer):
    id = await placement.provider("host-1", {"VCPU": 4})
    service = await placement.served.token("service")

    async def generation():
        return (await placement.must(200, "GET", f"/resource_providers/{id}"))["generation"]

    assert (await placement.allocate(consumer, {id: {"VCPU": 1}})).status == 204
    before = await generation()
    assert (await placement.allocate(consumer, {}, consumer_generation=1)).status == 204
    assert await generation() == before + 1  # emptied by a write
    assert (await placement.allocate(consumer, {id: {"VCPU": 1}})).status == 204
    await placement.must(204, "DELETE", f"/allocations/{consumer}")
    assert await generation() == before + 2  # a deletion only gives room
    shown = await placement.must(200, "GET", f"/resource_providers/{id}/inventories")
    reshape = {"inventories": {id: shown}, "allocations": {}}
    assert (await placement.ask("POST", "/reshaper", reshape, token=service)).status == 204
    assert await generation() == before + 4  # once to offer the old and the new, once to offer only the new


async def test_a_generation_moves_once_however_many_consumers_a_write_is_about(placement):
    id = await placement.provider("host-1", {"VCPU": 4})
    many = {clock.uuid4(): allocation({id: {"VCPU": 1}}) for _ in range(3)}
    await placement.must(204, "POST", "/allocations", many)
    assert (await placement.must(200, "GET", f"/resource_providers/{id}"))["generation"] == 2
