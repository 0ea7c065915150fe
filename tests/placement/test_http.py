"""What a client of the placement API sees: providers, inventories, traits, aggregates, classes."""

import pytest

from bus import clock

HOST = {"VCPU": {"total": 8, "allocation_ratio": 2.0}, "MEMORY_MB": 4096, "DISK_GB": 100}


async def test_the_version_document_wants_no_token(placement):
    answer = await placement.served.call("GET", "/placement/")
    [version] = answer.json["versions"]
    assert (version["min_version"], version["max_version"]) == ("1.0", "1.39")
    assert version["links"] == [{"rel": "self", "href": ""}]


async def test_a_provider_from_its_birth_to_its_end(placement):
    id = clock.uuid4()
    created = await placement.ask("POST", "/resource_providers", {"name": "host-1", "uuid": id})
    assert created.status == 200
    assert created.headers["Location"].endswith(f"/placement/resource_providers/{id}")
    assert created.json == await placement.must(200, "GET", f"/resource_providers/{id}")
    assert (created.json["generation"], created.json["root_provider_uuid"]) == (0, id)
    again = await placement.ask("POST", "/resource_providers", {"name": "host-1"})
    assert (again.status, again.json["errors"][0]["code"]) == (409, "placement.duplicate_name")
    renamed = await placement.must(200, "PUT", f"/resource_providers/{id}", {"name": "host-2"})
    assert (renamed["name"], renamed["generation"]) == ("host-2", 0)
    await placement.must(204, "DELETE", f"/resource_providers/{id}")
    await placement.must(404, "GET", f"/resource_providers/{id}")
    await placement.must(200, "POST", "/resource_providers", {"name": "host-2", "uuid": id})


async def test_older_clients_get_what_they_know(placement):
    created = await placement.ask("POST", "/resource_providers", {"name": "host-1"}, version="1.0")
    assert (created.status, created.body) == (201, b"")
    assert "Last-Modified" not in created.headers
    [shown] = (await placement.must(200, "GET", "/resource_providers", version="1.0"))["resource_providers"]
    assert set(shown) == {"uuid", "name", "generation", "links"}
    assert [link["rel"] for link in shown["links"]] == ["self", "inventories", "usages"]
    await placement.must(404, "GET", "/traits", version="1.5")
    await placement.must(405, "DELETE", f"/resource_providers/{shown['uuid']}/inventories", version="1.4")
    await placement.must(406, "GET", "/resource_providers", version="1.99")
    newer = await placement.ask("GET", f"/resource_providers/{shown['uuid']}", version="1.15")
    assert newer.headers["Cache-Control"] == "no-cache"
    assert newer.headers["Last-Modified"].endswith("GMT")


async def test_errors_are_placements_own(placement):
    answer = await placement.ask("GET", f"/resource_providers/{clock.uuid4()}")
    [error] = answer.json["errors"]
    assert (answer.status, error["status"], error["title"]) == (404, 404, "Not Found")
    assert error["code"] == "placement.undefined_code"
    assert error["request_id"] == answer.headers["X-Openstack-Request-Id"]
    older = await placement.ask("GET", f"/resource_providers/{clock.uuid4()}", version="1.22")
    assert "code" not in older.json["errors"][0]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": 7},
        {"name": "x", "uuid": "no uuid"},
        {"name": "x", "colour": "red"},
        {"name": "x", "parent_provider_uuid": "b6b065cc-fcd9-4342-a7b0-2aed2d146518"},
        [],
    ],
)
async def test_bodies_that_make_no_sense_are_refused_and_leave_nothing(placement, body):
    await placement.must(400, "POST", "/resource_providers", body)
    assert (await placement.must(200, "GET", "/resource_providers"))["resource_providers"] == []


async def test_who_accepts_no_json_gets_nothing(placement):
    for accept, status in (("text/plain", 406), ("text/html, application/json", 200), ("*/*", 200)):
        answer = await placement.served.call(
            "GET", "/placement/resource_providers", token=placement.token, headers={"Accept": accept}
        )
        assert answer.status == status


async def test_the_root_is_not_cached_since_1_15(placement):
    newer, older = await placement.ask("GET", "/"), await placement.ask("GET", "/", version="1.14")
    assert newer.headers["Cache-Control"] == "no-cache"
    assert "Last-Modified" in newer.headers
    assert "Last-Modified" not in older.headers


@pytest.mark.parametrize(
    "body, rule",
    [
        ({}, "required"),
        ({"name": ""}, "minLength"),
        ({"name": "x" * 201}, "maxLength"),
        ({"name": 5}, "type"),
        ({"name": "a", "uuid": "b"}, "format"),
        ({"name": "a", "colour": "red"}, "additionalProperties"),
    ],
)
async def test_a_refused_body_names_the_rule_it_breaks(placement, body, rule):
    answer = await placement.ask("POST", "/resource_providers", body)
    assert answer.status == 400
    detail = answer.json["errors"][0]["detail"]
    told = detail.split("\n")[-1]
    assert "JSON does not validate: " in told, "clients show the last line"
    assert f"Failed validating '{rule}' in schema" in told


async def test_only_operators_and_services_may(placement):
    member = await placement.served.token("member")
    service = await placement.served.token("service")
    assert (await placement.ask("GET", "/resource_providers", token=member)).status == 403
    assert (await placement.ask("GET", "/resource_providers", token=service)).status == 200
    assert (await placement.ask("POST", "/reshaper", {"inventories": {}, "allocations": {}})).status == 403
    own = await placement.served.token("reader", project="p" * 32)
    assert (await placement.ask("GET", f"/usages?project_id={'p' * 32}", token=own)).status == 200
    assert (await placement.ask("GET", f"/usages?project_id={'q' * 32}", token=own)).status == 403


async def test_inventories_all_at_once(placement):
    id = await placement.provider("host-1")
    path = f"/resource_providers/{id}/inventories"
    body = {"resource_provider_generation": 0, "inventories": HOST | {"MEMORY_MB": {"total": 4096, "reserved": 512}}}
    body["inventories"]["DISK_GB"] = {"total": 100}
    shown = await placement.must(200, "PUT", path, body)
    assert shown["resource_provider_generation"] == 1
    assert shown["inventories"]["MEMORY_MB"] == {
        "total": 4096,
        "reserved": 512,
        "min_unit": 1,
        "max_unit": 2**31 - 1,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }
    assert shown == await placement.must(200, "GET", path)
    body["inventories"].pop("DISK_GB")
    stale = await placement.ask("PUT", path, body)
    assert (stale.status, stale.json["errors"][0]["code"]) == (409, "placement.concurrent_update")
    await placement.must(204, "DELETE", path)
    assert (await placement.must(200, "GET", path))["inventories"] == {}


async def test_inventories_one_by_one(placement):
    id = await placement.provider("host-1")
    path = f"/resource_providers/{id}/inventories"
    await placement.must(201, "POST", path, {"resource_class": "VCPU", "total": 8})
    await placement.must(409, "POST", path, {"resource_class": "VCPU", "total": 8})
    assert (await placement.must(200, "GET", f"{path}/VCPU"))["total"] == 8
    await placement.must(200, "PUT", f"{path}/VCPU", {"resource_provider_generation": 1, "total": 16})
    await placement.must(409, "PUT", f"{path}/VCPU", {"resource_provider_generation": 1, "total": 32})
    await placement.must(400, "PUT", f"{path}/DISK_GB", {"resource_provider_generation": 2, "total": 32})
    await placement.must(204, "DELETE", f"{path}/VCPU")
    await placement.must(404, "DELETE", f"{path}/VCPU")
    await placement.must(404, "GET", f"{path}/VCPU")


@pytest.mark.parametrize(
    "inventory, status",
    [
        ({"total": 0}, 400),
        ({"total": 2**31}, 400),
        ({"total": 8, "reserved": 9}, 400),
        ({"total": 8, "reserved": 8}, 200),
        ({"total": 8, "allocation_ratio": 0}, 200),
        ({"total": 8, "allocation_ratio": -1}, 400),
        ({"total": 8, "step_size": 0}, 400),
        ({"total": 8, "nonsense": 1}, 400),
    ],
)
async def test_inventories_within_limits(placement, inventory, status):
    id = await placement.provider("host-1")
    body = {"resource_provider_generation": 0, "inventories": {"VCPU": inventory}}
    await placement.must(status, "PUT", f"/resource_providers/{id}/inventories", body)


async def test_resource_classes_of_ones_own(placement):
    standard = await placement.must(200, "GET", "/resource_classes")
    assert {"VCPU", "MEMORY_MB", "DISK_GB", "PCPU", "VGPU"} <= {it["name"] for it in standard["resource_classes"]}
    id = await placement.provider("host-1")
    body = {"resource_provider_generation": 0, "inventories": {"CUSTOM_IRON": {"total": 1}}}
    await placement.must(400, "PUT", f"/resource_providers/{id}/inventories", body)
    await placement.must(201, "PUT", "/resource_classes/CUSTOM_IRON")
    await placement.must(204, "PUT", "/resource_classes/CUSTOM_IRON")
    await placement.must(409, "POST", "/resource_classes", {"name": "CUSTOM_IRON"})
    await placement.must(400, "PUT", "/resource_classes/IRON")
    await placement.must(200, "PUT", f"/resource_providers/{id}/inventories", body)
    await placement.must(409, "DELETE", "/resource_classes/CUSTOM_IRON")
    await placement.must(400, "DELETE", "/resource_classes/VCPU")
    await placement.must(204, "DELETE", f"/resource_providers/{id}/inventories")
    await placement.must(204, "DELETE", "/resource_classes/CUSTOM_IRON")
    await placement.must(404, "GET", "/resource_classes/CUSTOM_IRON")
    await placement.must(201, "POST", "/resource_classes", {"name": "CUSTOM_OLD"}, version="1.6")
    await placement.must(200, "PUT", "/resource_classes/CUSTOM_OLD", {"name": "CUSTOM_NEW"}, version="1.6")
    await placement.must(200, "GET", "/resource_classes/CUSTOM_NEW")


async def test_traits(placement):
    await placement.must(204, "GET", "/traits/HW_CPU_X86_AVX2")
    await placement.must(404, "GET", "/traits/CUSTOM_FAST")
    await placement.must(201, "PUT", "/traits/CUSTOM_FAST")
    await placement.must(204, "PUT", "/traits/CUSTOM_FAST")
    await placement.must(400, "PUT", "/traits/FAST")
    await placement.must(400, "DELETE", "/traits/HW_CPU_X86_AVX2")
    assert await placement.must(200, "GET", "/traits?name=startswith:CUSTOM_") == {"traits": ["CUSTOM_FAST"]}
    assert await placement.must(200, "GET", "/traits?name=in:CUSTOM_FAST,NONE") == {"traits": ["CUSTOM_FAST"]}
    id = await placement.provider("host-1")
    path = f"/resource_providers/{id}/traits"
    body = {"resource_provider_generation": 0, "traits": ["CUSTOM_FAST", "HW_CPU_X86_AVX2"]}
    shown = await placement.must(200, "PUT", path, body)
    assert shown == {"traits": ["HW_CPU_X86_AVX2", "CUSTOM_FAST"], "resource_provider_generation": 1}
    body["traits"] = []
    await placement.must(409, "PUT", path, body)
    await placement.must(400, "PUT", path, {"resource_provider_generation": 1, "traits": ["CUSTOM_UNKNOWN"]})
    assert await placement.must(200, "GET", "/traits?associated=true&name=startswith:CUSTOM") == {
        "traits": ["CUSTOM_FAST"]
    }
    await placement.must(409, "DELETE", "/traits/CUSTOM_FAST")
    await placement.must(204, "DELETE", path)
    await placement.must(204, "DELETE", "/traits/CUSTOM_FAST")


async def test_aggregates_move_the_generation_since_1_19(placement):
    id = await placement.provider("host-1")
    path, aggregate = f"/resource_providers/{id}/aggregates", clock.uuid4()
    assert await placement.must(200, "PUT", path, [aggregate], version="1.1") == {"aggregates": [aggregate]}
    assert (await placement.must(200, "GET", f"/resource_providers/{id}"))["generation"] == 0
    body = {"aggregates": [], "resource_provider_generation": 0}
    assert (await placement.must(200, "PUT", path, body))["resource_provider_generation"] == 1
    body["aggregates"] = [aggregate]
    await placement.must(409, "PUT", path, body)
    bare = aggregate.replace("-", "")
    body = {"aggregates": [bare], "resource_provider_generation": 1}
    assert (await placement.must(200, "PUT", path, body))["aggregates"] == [bare]
    found = await placement.must(200, "GET", f"/resource_providers?member_of={bare}")
    assert [it["uuid"] for it in found["resource_providers"]] == [id]


async def test_providers_are_found_by_what_they_have(placement):
    north, south = clock.uuid4(), clock.uuid4()
    await placement.must(201, "PUT", "/traits/CUSTOM_FAST")
    one = await placement.provider("one", HOST, traits=["CUSTOM_FAST"], aggregates=[north])
    two = await placement.provider("two", HOST, traits=["HW_CPU_X86_AVX2"], aggregates=[north, south])
    three = await placement.provider("three", {"VCPU": 2}, parent=two)

    async def found(query, version="1.39"):
        listed = await placement.must(200, "GET", f"/resource_providers?{query}", version=version)
        return {it["uuid"] for it in listed["resource_providers"]}

    assert await found("") == {one, two, three}
    assert await found("name=one") == {one}
    assert await found(f"uuid={two}") == {two}
    assert await found("resources=VCPU:16,MEMORY_MB:1") == {one, two}
    assert await found("resources=VCPU:17") == set()
    assert await found(f"member_of={south}") == {two}
    assert await found(f"member_of=in:{north},{south}") == {one, two}
    assert await found(f"member_of={north}&member_of=!{south}") == {one}
    assert await found("required=CUSTOM_FAST") == {one}
    assert await found("required=!CUSTOM_FAST") == {two, three}
    assert await found("required=in:CUSTOM_FAST,HW_CPU_X86_AVX2") == {one, two}
    assert await found(f"in_tree={three}") == {two, three}
    assert await found(f"in_tree={clock.uuid4()}") == set()


@pytest.mark.parametrize(
    "query",
    [
        "colour=red",
        "uuid=x",
        "resources=VCPU",
        "resources=VCPU:0",
        "resources=NOPE:1",
        "required=NO_SUCH",
        "member_of=x",
    ],
)
async def test_queries_that_make_no_sense(placement, query):
    await placement.must(400, "GET", f"/resource_providers?{query}")


async def test_trees_grow_and_move(placement):
    top = await placement.provider("top")
    middle = await placement.provider("middle", parent=top)
    leaf = await placement.provider("leaf", parent=middle)
    other = await placement.provider("other")
    refused = await placement.ask("DELETE", f"/resource_providers/{middle}")
    assert refused.json["errors"][0]["code"] == "placement.resource_provider.cannot_delete_parent"
    loop = {"name": "top", "parent_provider_uuid": leaf}
    await placement.must(400, "PUT", f"/resource_providers/{top}", loop)
    move = {"name": "middle", "parent_provider_uuid": other}
    await placement.must(400, "PUT", f"/resource_providers/{middle}", move, version="1.36")
    await placement.must(200, "PUT", f"/resource_providers/{middle}", move)
    shown = await placement.must(200, "GET", f"/resource_providers/{leaf}")
    assert (shown["parent_provider_uuid"], shown["root_provider_uuid"]) == (middle, other)
    await placement.must(204, "DELETE", f"/resource_providers/{top}")
    for id in (leaf, middle, other):
        await placement.must(204, "DELETE", f"/resource_providers/{id}")


async def test_a_write_that_changes_nothing_moves_the_generation(placement, consumer):
    id = await placement.provider("host-1", {"VCPU": 4})
    path = f"/resource_providers/{id}"
    for what in ("inventories", "aggregates"):
        shown = await placement.must(200, "GET", f"{path}/{what}")
        again = await placement.must(200, "PUT", f"{path}/{what}", shown)
        assert again == shown | {"resource_provider_generation": shown["resource_provider_generation"] + 1}
        await placement.must(409, "PUT", f"{path}/{what}", {**shown, what: type(shown[what])()})
    for seen in (None, 1):
        before = (await placement.must(200, "GET", path))["generation"]
        answer = await placement.allocate(consumer, {id: {"VCPU": 1}}, consumer_generation=seen)
        assert answer.status == 204
        assert (await placement.must(200, "GET", path))["generation"] == before + 1
    assert (await placement.allocate(consumer, {id: {"VCPU": 1}})).status == 409
    shown = await placement.must(200, "GET", f"{path}/traits")
    assert await placement.must(200, "PUT", f"{path}/traits", shown) == shown
    await placement.must(409, "PUT", f"{path}/traits", shown | {"resource_provider_generation": 0})
    await placement.must(204, "DELETE", f"{path}/traits")
    assert (await placement.must(200, "GET", path))["generation"] == before + 1


async def test_tokens_of_the_system_may_nothing(placement):
    system = await placement.served.token("admin", system=True)
    assert (await placement.ask("GET", "/resource_providers", token=system)).status == 403
    assert (await placement.ask("GET", "/usages?project_id=p", token=system)).status == 403


async def test_a_provider_that_is_not_there_is_said_before_what_is_wrong_with_a_body(placement):
    await placement.must(404, "PUT", f"/resource_providers/{clock.uuid4()}/inventories", {"nonsense": 1})
    headers = {"OpenStack-API-Version": "placement 1.39"}
    path, token = f"/placement/resource_providers/{clock.uuid4()}", placement.token
    untyped = await placement.served.call("PUT", path, token=token, headers=headers)
    assert untyped.status == 415
    untyped = await placement.served.call("PUT", path, token=token, headers=headers, data=b'{"name": "a"}')
    assert (untyped.status, "content-type header required" in untyped.json["errors"][0]["detail"]) == (400, True)
    answer = await placement.ask("HEAD", "/resource_providers")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    "body, says",
    [
        ({"VCPU": {"total": 0}}, "0 is less than the minimum of 1"),
        ({"VCPU": {"total": "many"}}, "'many' is not of type 'integer'"),
        ({"DISK_GB": {"total": 1}, "VCPU": {"total": 2**31}}, "2147483648 is greater than the maximum of 2147483647"),
        ({"VCPU": {}}, "'total' is a required property"),
        ({"vcpu": {"total": 1}}, "'vcpu' does not match any of the regexes"),
    ],
)
async def test_a_refused_body_names_the_value(placement, body, says):
    id = await placement.provider("host-1")
    body = {"resource_provider_generation": 0, "inventories": body}
    answer = await placement.ask("PUT", f"/resource_providers/{id}/inventories", body)
    assert answer.status == 400
    assert f"JSON does not validate: {says}" in answer.json["errors"][0]["detail"]
