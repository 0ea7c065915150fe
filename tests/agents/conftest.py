"""The guest image and a libvirtd, for tests with real guests."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import guest
from tests.agents.control import Control


@pytest.fixture(scope="session")
def guest_image() -> Path:
    return guest.guest_image()


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    """The control plane of one host."""
    control = Control()
    yield control
    await control.close()


@pytest.fixture(scope="module")
def hypervisor_folder() -> Iterator[Path]:
    """Where guests' user gets to; removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="cumulog-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def libvirtd(hypervisor_folder):
    """A libvirtd of our own; whatever it runs in the end is ended with it."""
    import libvirt

    from agents.hypervisor.libvirtd import PrivateLibvirtd
    from agents.hypervisor.packages import make_user

    make_user()
    daemon = PrivateLibvirtd(hypervisor_folder / "libvirtd")
    daemon.start()
    yield daemon
    daemon.start()
    connection = libvirt.open(daemon.uri)
    for domain in connection.listAllDomains():
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
    connection.close()
    daemon.stop()
