"""What compute begins with: flavors to choose from. Those an operator deleted stay deleted."""

from __future__ import annotations

from bus.cloud import Cloud
from bus.execute import AlreadyTaken, Wish
from handlers.compute.flavor import FLAVORS
from schema.compute.flavor import FLAVOR, CreateFlavor

DEFAULT_FLAVORS: dict[str, CreateFlavor] = {
    id: CreateFlavor(name=name, vcpus=vcpus, ram_mb=ram_mb, disk_gb=disk_gb)
    for id, name, vcpus, ram_mb, disk_gb in (
        ("42", "m1.nano", 1, 128, 1),
        ("1", "m1.tiny", 1, 512, 1),
        ("2", "m1.small", 1, 2048, 20),
        ("3", "m1.medium", 2, 4096, 40),
        ("4", "m1.large", 4, 8192, 80),
        ("5", "m1.xlarge", 8, 16384, 160),
    )
}


async def bootstrap(cloud: Cloud) -> None:
    """Make the default flavors, each at most once in the cloud's life. May run at every start, in any process."""
    known = await cloud.executor.load([FLAVOR.stream(id) for id in DEFAULT_FLAVORS])
    for id, flavor in DEFAULT_FLAVORS.items():
        if FLAVOR.stream(id) not in known:
            try:
                await cloud.executor.execute(Wish(FLAVORS, id, flavor))
            except AlreadyTaken:
                continue  # an operator's own flavor has the name
