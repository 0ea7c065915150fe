"""Copies of real guests' disks: of one that runs, of one that is off, and of one that is broken off."""

import libvirt
import pytest

from agents.hypervisor import disk
from schema.compute.domain import ImageRef

from .image_service import image_service
from .test_libvirt import BOOT_SECONDS, domain_of, driver, image, order, says  # noqa: F401

pytestmark = [pytest.mark.live, pytest.mark.slow]


async def test_a_running_guest_is_copied_and_another_boots_from_it(
    control,
    driver,  # noqa: F811
    order,  # noqa: F811
    libvirtd,
    hypervisor_folder,
    tmp_path,
):
    await control.start_agent(driver())
    id, wish = order("#!/bin/sh\necho I was here > /witness; sync; echo ready for it\n")
    folder = hypervisor_folder / "hypervisor" / "guests" / id
    await control.tell(wish())
    await control.seen(id, "running", 60)
    await says(control, id, "ready for it")
    number = domain_of(libvirtd, id).ID()
    async with image_service() as service:
        await control.tell(wish(snapshot=service.wanted("live")))
        await control.until(lambda: control.observed[id].snapshot == "live", 60)
        now = domain_of(libvirtd, id)
        assert (now.ID(), now.state()[0]) == (number, libvirt.VIR_DOMAIN_RUNNING)
        assert not (folder / "copy").exists()
        path = tmp_path / "live.qcow2"
        path.write_bytes(service.images["live"])
        said = await disk.inspect(path, "qcow2")
        assert (said["virtual-size"], "backing-filename" in said) == (1 << 30, False)

        for power in ("paused", "suspended"):
            await control.tell(wish(power, snapshot=service.wanted(power)))
            await control.until(lambda power=power: control.observed[id].snapshot == power, 60)
            assert control.observed[id].power == power
            assert service.images[power].startswith(b"QFI\xfb")
        await control.tell(wish())
        await control.seen(id, "running", 60)

        # What comes in between leaves nothing: the wish is withdrawn while the image service is silent.
        service.statuses = [503] * 9
        await control.tell(wish(snapshot=service.wanted("lost")))
        await control.until(lambda: service.asked > 1, 60)
        await control.tell(wish("stopped", stop_timeout_seconds=0))
        await control.seen(id, "stopped", 60)
        assert not (folder / "copy").exists()
        assert control.observed[id].snapshot == "suspended"

        service.statuses = []
        await control.tell(wish("stopped", snapshot=service.wanted("off")))
        await control.until(lambda: control.observed[id].snapshot == "off", 60)
        assert service.images["off"].startswith(b"QFI\xfb")
        # An agent that dies in the midst leaves a copy; the next one does not.
        (folder / "copy").touch()
        await control.stop_agent()
        control.manifest = (wish("stopped"),)
        await control.start_agent(driver())
        await control.until(lambda: not (folder / "copy").exists(), 30)
    await control.tell(wish("absent"))

    again, wish_again = order("#!/bin/sh\necho it says: $(cat /witness)\n")
    taken = ImageRef(id="live", url=path.as_uri(), size_bytes=path.stat().st_size)
    await control.tell(wish_again(image=taken))
    await control.seen(again, "running", 60)
    assert "it says: I was here" in await says(control, again, "it says:", BOOT_SECONDS)
    await control.tell(wish_again("absent"))
    await control.until(lambda: {id, again} <= control.removed, 30)
