"""Routers: what they join does not overlap, what leads through them stays, and where they live."""

from handlers.network.router import ROUTERS
from schema.network.port_state import FixedIp
from schema.network.router import (
    AddRouterInterface,
    AddRouterService,
    AddRoutes,
    CreateRouter,
    DeleteRouter,
    ExternalGateway,
    FloatingIpLeft,
    FloatingIpServed,
    LeaveFloatingIp,
    RemoveRouterInterface,
    RemoveRouterService,
    RemoveRoutes,
    ReportRouterWired,
    RouterCreated,
    RouterDeleted,
    RouterGatewaySet,
    RouterInterface,
    RouterInterfaceAdded,
    RouterInterfaceRemoved,
    RouterScheduled,
    RouterServiceAdded,
    RouterServiceRemoved,
    RouterUpdated,
    RouterWired,
    ScheduleRouter,
    ServeFloatingIp,
    SetRouterGateway,
    UpdateRouter,
)
from schema.network.wiring import HostRoute
from schema.refusal import Conflict, Invalid, NotFound
from tests.story import Story

routers = Story(ROUTERS)
created = RouterCreated(name="edge", project_id="p")
gateway = ExternalGateway(
    network_id="outside",
    port_id="g",
    fixed_ips=(FixedIp(subnet_id="so", ip_address="203.0.113.5"),),
    cidrs=("203.0.113.0/24",),
)
foot = RouterInterface(port_id="i", network_id="n", subnet_ids=("s",), cidrs=("10.0.0.0/24",), ips=("10.0.0.1",))
two = RouterInterface(
    port_id="v6",
    network_id="n6",
    subnet_ids=("a", "b"),
    cidrs=("fd00:a::/64", "fd00:b::/64"),
    ips=("fd00:a::1", "fd00:b::1"),
)
out = RouterGatewaySet(gateway=gateway)
joined = RouterInterfaceAdded(interface=foot)
served = FloatingIpServed(floating_ip_id="f", subnet_ids=("s",))
there = HostRoute(destination="192.0.2.0/24", nexthop="10.0.0.9")


def test_a_router_is_made_changed_and_deleted():
    made = routers.given().when(CreateRouter(name="edge", project_id="p")).then(created)
    changed = made.when(UpdateRouter(name="core", admin_state_up=False)).then(
        RouterUpdated(name="core", admin_state_up=False)
    )
    changed.when(DeleteRouter()).then(RouterDeleted())
    routers.given(created, RouterDeleted()).when(UpdateRouter(name="x")).refused("could not be found", NotFound)
    routers.given(created, RouterDeleted()).when(CreateRouter(name="edge", project_id="p")).refused("not used again")


def test_a_router_with_a_foot_stays():
    routers.given(created, joined).when(DeleteRouter()).refused("still has ports", Conflict)
    routers.given(created, joined, RouterInterfaceRemoved(port_id="i")).when(DeleteRouter()).then(RouterDeleted())


def test_what_it_joins_does_not_overlap():
    same = RouterInterface(port_id="j", network_id="n", subnet_ids=("s",), cidrs=("10.0.0.0/24",))
    wider = RouterInterface(port_id="j", network_id="m", subnet_ids=("t",), cidrs=("10.0.0.0/16",))
    outer = RouterInterface(port_id="j", network_id="m", subnet_ids=("t",), cidrs=("203.0.113.128/25",))
    apart = RouterInterface(port_id="j", network_id="m", subnet_ids=("t",), cidrs=("10.0.1.0/24",))
    given = routers.given(created, out, joined)
    given.when(AddRouterInterface(interface=same)).refused("already has a port on subnet s", Invalid)
    given.when(AddRouterInterface(interface=wider)).refused("overlaps with cidr 10.0.0.0/24 of subnet s", Invalid)
    given.when(AddRouterInterface(interface=outer)).refused("overlaps with cidr 203.0.113.0/24", Invalid)
    given.when(AddRouterInterface(interface=apart)).then(RouterInterfaceAdded(interface=apart))
    inside = RouterInterface(port_id="j", network_id="m", subnet_ids=("t",), cidrs=("203.0.113.0/24",))
    routers.given(created, RouterInterfaceAdded(interface=inside)).when(SetRouterGateway(gateway=gateway)).refused(
        "overlaps", Invalid
    )


def test_a_foot_with_two_subnets_loses_one_and_then_goes():
    narrow = RouterInterface(
        port_id="v6", network_id="n6", subnet_ids=("b",), cidrs=("fd00:b::/64",), ips=("fd00:b::1",)
    )
    after = (
        routers.given(created, RouterInterfaceAdded(interface=two))
        .when(RemoveRouterInterface(port_id="v6", subnet_ids=("a",)))
        .then(RouterInterfaceAdded(interface=narrow))
    )
    after.when(RemoveRouterInterface(port_id="v6")).then(RouterInterfaceRemoved(port_id="v6"))


def test_a_route_leads_to_a_neighbour():
    given = routers.given(created, joined)
    given.when(UpdateRouter(routes=(there,))).then(RouterUpdated(routes=(there,)))
    far = HostRoute(destination="192.0.2.0/24", nexthop="172.16.0.1")
    given.when(UpdateRouter(routes=(far,))).refused("is not connected with router", Invalid)
    itself = HostRoute(destination="192.0.2.0/24", nexthop="10.0.0.1")
    given.when(AddRoutes(routes=(itself,))).refused("is used by router", Invalid)
    many = tuple(HostRoute(destination=f"192.0.{n}.0/24", nexthop="10.0.0.9") for n in range(31))
    given.when(UpdateRouter(routes=many)).refused("exceeds the maximum 30", Invalid)


def test_routes_come_and_go_one_by_one():
    other = HostRoute(destination="198.51.100.0/24", nexthop="10.0.0.9")
    after = routers.given(created, joined, RouterUpdated(routes=(there,))).when(AddRoutes(routes=(there, other)))
    left = after.then(RouterUpdated(routes=(there, other))).when(RemoveRoutes(routes=(there,)))
    left.then(RouterUpdated(routes=(other,))).when(RemoveRouterInterface(port_id="i")).refused("one or more routes")


def test_a_floating_ip_keeps_the_way_it_needs():
    given = routers.given(created, out, joined)
    serve = ServeFloatingIp(floating_ip_id="f", network_id="outside", subnet_ids=("s",))
    after = given.when(serve).then(served)
    after.when(RemoveRouterInterface(port_id="i")).refused("one or more floating IPs", Conflict)
    after.when(SetRouterGateway(gateway=None)).refused("required by one or more floating IPs", Conflict)
    free = after.when(LeaveFloatingIp(floating_ip_id="f")).then(FloatingIpLeft(floating_ip_id="f"))
    free.when(RemoveRouterInterface(port_id="i")).then(RouterInterfaceRemoved(port_id="i"))
    free.when(SetRouterGateway(gateway=None)).then(RouterGatewaySet(gateway=None))


def test_a_floating_ip_comes_only_where_there_is_a_way():
    serve = ServeFloatingIp(floating_ip_id="f", network_id="outside", subnet_ids=("s",))
    routers.given(created, joined).when(serve).refused("is not reachable from subnet s", NotFound)
    routers.given(created, out).when(serve).refused("is not reachable from subnet s", NotFound)


def test_a_vpn_service_keeps_the_router_and_its_foot():
    given = routers.given(created, joined)
    given.when(AddRouterService(service_id="v", subnet_ids=("t",))).refused("is not connected to Router", Invalid)
    after = given.when(AddRouterService(service_id="v", subnet_ids=("s",))).then(
        RouterServiceAdded(service_id="v", subnet_ids=("s",))
    )
    after.when(RemoveRouterInterface(port_id="i")).refused("used by VPNService", Conflict)
    after.when(RemoveRouterService(service_id="v")).then(RouterServiceRemoved(service_id="v"))
    routers.given(created, RouterServiceAdded(service_id="v")).when(DeleteRouter()).refused("used by VPNService")


def test_it_lives_on_one_host_and_only_that_host_speaks_of_it():
    placed = routers.given(created).when(ScheduleRouter(host="n1", lives_on="")).then(RouterScheduled(host="n1"))
    wired = placed.when(ReportRouterWired(host="n1", up=True)).then(RouterWired(up=True))
    wired.when(ReportRouterWired(host="n2", up=False, fault="late")).then()
    moved = wired.when(ScheduleRouter(host="n2", lives_on="n1")).then(RouterScheduled(host="n2"))
    assert not moved.state.wired
    moved.when(ScheduleRouter(host="n3", lives_on="n1")).refused("lives on n2 by now", Conflict)
