import pytest

from agents.hypervisor.plan import (
    Adopt,
    AwaitTaps,
    Define,
    Pause,
    Plug,
    Reboot,
    Remake,
    Remove,
    Rescue,
    Start,
    Stop,
    Suspend,
    Unpause,
    Unplug,
    Unrescue,
    impatient,
    plan,
)
from schema.compute.domain import Domain, ImageRef, Nic, Observed, Reboots


def wanted(power="running", generation=2, **more):
    return Domain(server_id="a", name="a", generation=generation, power=power, **more)


def seen(power="running", generation=1, **more):
    return Observed(server_id="a", power=power, generation=generation, **more)


def planned(domain, observed=None, **more):
    return plan({"a": domain}, {"a": observed} if observed else {}, **more)


def kinds(steps):
    return [type(step) for step in steps]


@pytest.mark.parametrize(
    "power,steps",
    [
        ("running", [Define, Start, Adopt]),
        ("stopped", [Define, Adopt]),
        ("paused", [Define, Start, Pause, Adopt]),
        ("suspended", [Define, Start, Suspend, Adopt]),
        ("absent", []),
    ],
)
def test_a_new_server_is_built(power, steps):
    assert kinds(planned(wanted(power))) == steps


@pytest.mark.parametrize(
    "before,power,steps",
    [
        ("stopped", "running", [Start]),
        ("crashed", "running", [Start]),
        ("suspended", "running", [Start]),
        ("paused", "running", [Unpause]),
        ("running", "running", []),
        ("running", "stopped", [Stop]),
        ("paused", "stopped", [Stop]),
        ("suspended", "stopped", [Stop]),
        ("crashed", "stopped", []),
        ("running", "paused", [Pause]),
        ("stopped", "paused", [Start, Pause]),
        ("running", "suspended", [Suspend]),
        ("paused", "suspended", [Unpause, Suspend]),
        ("suspended", "suspended", []),
    ],
)
def test_a_newer_wish_is_carried_out_and_adopted(before, power, steps):
    assert kinds(planned(wanted(power), seen(before))) == [*steps, Adopt]


@pytest.mark.parametrize("before", ["running", "stopped", "paused", "suspended", "crashed"])
def test_what_should_be_absent_goes(before):
    assert planned(wanted("absent"), seen(before)) == [Remove("a")]


def test_an_older_wish_never_undoes_a_newer_one():
    assert planned(wanted("absent", generation=2), seen("running", generation=3)) == []
    assert planned(wanted("stopped", generation=2), seen("running", generation=3)) == []


def test_a_guest_that_shut_itself_down_is_not_started_again():
    assert planned(wanted(generation=2), seen("stopped", generation=2)) == []


def test_a_guest_that_ran_when_the_host_went_down_is_started_again():
    assert kinds(planned(wanted(generation=2), seen("stopped", generation=2, interrupted=True))) == [Start]


def test_a_guest_paused_by_a_lapsed_lease_runs_on():
    assert kinds(planned(wanted(generation=2), seen("paused", generation=2, fenced=True))) == [Unpause]
    assert planned(wanted("paused", generation=2), seen("paused", generation=2, fenced=True)) == []


def test_a_reboot_is_done_once():
    twice = wanted(reboots=Reboots(soft=2, hard=1))
    [reboot, adopt] = planned(twice, seen(reboots=Reboots(soft=1, hard=1)))
    assert reboot == Reboot(twice, hard=False)
    assert adopt == Adopt("a", 2, twice.reboots)
    assert kinds(planned(twice, seen(reboots=twice.reboots))) == [Adopt]


@pytest.mark.parametrize("before", ["running", "paused", "crashed", "stopped", "suspended"])
def test_a_hard_reboot_works_from_anywhere(before):
    [reboot, _] = planned(wanted(reboots=Reboots(hard=1)), seen(before))
    assert reboot.hard


def test_a_soft_reboot_of_a_stopped_server_starts_it():
    assert kinds(planned(wanted(reboots=Reboots(soft=1)), seen("stopped"))) == [Start, Adopt]


def test_unknown_domains_go_only_on_a_full_manifest():
    assert plan({}, {"a": seen()}, position=9) == []
    assert plan({}, {"a": seen()}, position=9, full=True) == [Remove("a")]


def test_a_manifest_does_not_remove_what_was_built_after_it_was_written():
    assert plan({}, {"a": seen(position=10)}, position=9, full=True) == []


def test_doing_what_was_planned_leaves_nothing_to_do():
    domain = wanted(reboots=Reboots(soft=1, hard=1))
    adopted = planned(domain, seen())[-1]
    assert planned(domain, seen(generation=adopted.generation, reboots=adopted.reboots)) == []


def test_only_a_wish_for_another_state_breaks_off_what_is_being_done():
    assert impatient(wanted("stopped"), wanted("absent"))
    assert impatient(wanted(), wanted(reboots=Reboots(hard=1)))
    assert not impatient(wanted(generation=2), wanted(generation=3))


TAP1, TAP2 = (Nic(port_id=f"p{n}", mac_address=f"fa:16:3e:00:00:0{n}", tap=f"tap{n}") for n in (1, 2))


@pytest.mark.parametrize(
    "before,taps,power,nics,steps",
    [
        ("running", ("tap1",), "running", (TAP1,), []),
        ("running", ("tap1",), "running", (TAP1, TAP2), [AwaitTaps, Plug]),
        ("running", ("tap1", "tap2"), "running", (TAP1,), [Unplug]),
        ("running", ("tap1",), "running", (TAP2,), [Unplug, AwaitTaps, Plug]),
        ("stopped", ("tap1",), "stopped", (TAP2,), [Unplug, Plug]),
        ("stopped", (), "running", (TAP1,), [Plug, AwaitTaps, Start]),
        ("running", ("tap1",), "stopped", (), [Stop, Unplug]),
        ("suspended", ("tap1",), "running", (TAP1, TAP2), [AwaitTaps, Start, AwaitTaps, Plug]),
        ("running", ("tap1",), "suspended", (TAP2,), [Suspend]),
    ],
)
def test_cards_come_and_go_with_the_wish(before, taps, power, nics, steps):
    assert kinds(planned(wanted(power, networks=nics), seen(before, taps=taps))) == [*steps, Adopt]


def test_a_new_server_waits_for_its_taps():
    assert kinds(planned(wanted(networks=(TAP1,)))) == [Define, AwaitTaps, Start, Adopt]


def test_a_card_that_was_taken_behind_our_back_is_put_in_again():
    assert kinds(planned(wanted(networks=(TAP1,)), seen(generation=2))) == [AwaitTaps, Plug]
    assert kinds(planned(wanted(), seen(generation=2, taps=("tap1",)))) == [Unplug]
    assert planned(wanted(networks=(TAP1,)), seen(generation=3)) == []


def test_a_card_whose_tap_was_made_anew_is_plugged_in_again():
    domain = wanted(networks=(TAP1, TAP2))
    [unplug, wait, plug] = planned(domain, seen(generation=2, taps=("tap1", "tap2"), severed=("tap1",)))
    assert (unplug, wait.nics, plug.nic) == (Unplug("a", "tap1"), (TAP1,), TAP1)


@pytest.mark.parametrize("before", ["running", "stopped", "crashed", "paused", "suspended"])
@pytest.mark.parametrize("power,steps", [("running", [Remake, Start, Adopt]), ("stopped", [Remake, Adopt])])
def test_a_root_disk_is_made_anew_from_anywhere(before, power, steps):
    assert kinds(planned(wanted(power, remade=1), seen(before))) == steps


def test_a_root_disk_is_made_anew_once():
    assert kinds(planned(wanted(remade=1), seen(remade=1))) == [Adopt]
    assert kinds(planned(wanted(remade=2))) == [Define, Start, Adopt]


def test_another_image_breaks_off_what_is_being_done():
    assert impatient(wanted(remade=1), wanted(generation=3, remade=2))


def test_a_remade_guest_waits_for_its_taps():
    nic = Nic(port_id="p", mac_address="fa:16:3e:00:00:01", tap="tap1")
    domain = wanted(remade=1, networks=(nic,))
    assert kinds(planned(domain, seen("stopped"))) == [Remake, AwaitTaps, Start, Adopt]


@pytest.mark.parametrize(
    "before,power,steps",
    [
        ("stopped", "running", [Start]),
        ("paused", "running", [Unpause]),
        ("running", "stopped", [Stop]),
        ("running", "paused", [Pause]),
        ("running", "suspended", [Suspend]),
    ],
)
def test_what_strayed_from_a_wish_comes_back_when_that_is_made_anew(before, power, steps):
    assert kinds(planned(wanted(power), seen(before, generation=2))) == []
    assert kinds(planned(wanted(power, generation=3), seen(before, generation=2))) == [*steps, Adopt]


@pytest.mark.parametrize("before", ["running", "stopped", "paused", "suspended"])
def test_a_guest_is_rescued_and_brought_back_from_anywhere(before):
    image = ImageRef(id="i", url="file:///i")
    assert kinds(planned(wanted(rescue=image), seen(before))) == [Rescue, Start, Adopt]
    assert kinds(planned(wanted(), seen(before, rescued=True))) == [Unrescue, Start, Adopt]


def test_a_rescued_guest_stops_and_starts_as_others():
    image = ImageRef(id="i", url="file:///i")
    assert kinds(planned(wanted("stopped", rescue=image), seen(rescued=True))) == [Stop, Adopt]
    assert kinds(planned(wanted(rescue=image), seen("stopped", rescued=True))) == [Start, Adopt]
