import asyncio
import hashlib
import subprocess

import pytest
from aiohttp import web

from agents.hypervisor import image_cache
from agents.hypervisor.driver import StepFailed
from agents.hypervisor.image_cache import ImageCache
from agents.hypervisor.libvirt import LibvirtDriver
from schema.compute.domain import ImageRef, ImageTicket

CONTENT = bytes(range(256)) * 8192


class Store:
    """An image service as small as can be."""

    def __init__(self):
        self.asked = 0
        self.tokens = []
        self.failures = 0
        self.go = asyncio.Event()
        self.go.set()

    async def start(self):
        application = web.Application()
        application.router.add_get("/image", self.get)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/image"

    async def get(self, request):
        self.asked += 1
        self.tokens.append(request.headers.get("X-Auth-Token"))
        await self.go.wait()
        if self.failures:
            self.failures -= 1
            raise web.HTTPServiceUnavailable
        return web.Response(body=CONTENT)


@pytest.fixture
async def store():
    store = Store()
    await store.start()
    yield store
    store.go.set()
    await store.runner.cleanup()


@pytest.fixture
def cache(tmp_path):
    return ImageCache(tmp_path / "images")


def image(store, **more):
    fields = {
        "checksum": hashlib.sha512(CONTENT).hexdigest(),
        "size_bytes": len(CONTENT),
        "disk_format": "raw",
        "ticket": ImageTicket(token="leave"),
    }
    return ImageRef(id="i1", url=store.url, **fields | more)


def nothing(done, whole):
    pass


async def test_an_image_is_downloaded_once_however_many_wait(cache, store):
    heard = []
    paths = await asyncio.gather(*(cache.get(image(store), lambda *it: heard.append(it)) for _ in range(20)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert await cache.get(image(store), nothing) == paths[0]
    assert store.asked == 1
    assert store.tokens == ["leave"]
    assert heard[-1] == (len(CONTENT), len(CONTENT))


async def test_a_damaged_image_is_refused_and_not_kept(cache, store):
    with pytest.raises(StepFailed, match="damaged"):
        await cache.get(image(store, checksum="0" * 128), nothing)
    assert list(cache.folder.iterdir()) == []


async def test_a_passing_failure_is_tried_again(cache, store, monkeypatch):
    monkeypatch.setattr(image_cache, "RETRY_SECONDS", 0.01)
    store.failures = 2
    assert (await cache.get(image(store), nothing)).exists()


async def test_an_image_that_is_not_there_fails_at_once_in_words(cache, store):
    with pytest.raises(StepFailed, match="image i1 could not be downloaded: 404"):
        await cache.get(ImageRef(id="i1", url=f"{store.url}/nowhere", disk_format="raw"), nothing)
    assert store.asked == 0


async def test_a_longer_image_than_promised_is_cut_off(cache, store):
    with pytest.raises(StepFailed, match="longer than"):
        await cache.get(image(store, size_bytes=100), nothing)


async def test_who_gives_up_leaves_nothing_and_a_later_one_begins_anew(cache, store):
    store.go.clear()
    first = asyncio.create_task(cache.get(image(store), nothing))
    while not store.asked:  # noqa: ASYNC110
        await asyncio.sleep(0)
    first.cancel()
    store.go.set()
    assert (await cache.get(image(store), nothing)).exists()
    assert len(list(cache.folder.iterdir())) == 1


@pytest.fixture
def evil(tmp_path):
    path = tmp_path / "evil.qcow2"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", path, "1M"]
    subprocess.run(command, check=True)
    return path


async def test_an_image_that_points_to_a_file_of_the_host_is_refused(cache, evil):
    with pytest.raises(StepFailed, match="refers to another file"):
        await cache.get(ImageRef(id="evil", url=evil.as_uri()), nothing)


async def test_what_is_no_qcow2_is_not_taken_for_one(cache, store):
    with pytest.raises(StepFailed):
        await cache.get(image(store, disk_format="qcow2"), nothing)


async def test_only_unused_images_are_cleaned_away(cache, store):
    path = await cache.get(image(store), nothing)
    cache.clean(in_use=())
    assert path.exists()
    old = ImageCache(cache.folder, unused_seconds=-1)
    old.clean(in_use={path})
    assert path.exists()
    old.clean(in_use=())
    assert not path.exists()


async def test_the_driver_has_an_image_at_hand_in_advance(store, tmp_path):
    driver = LibvirtDriver("host-1", "test:///default", tmp_path)
    ref = image(store)
    await driver.fetch_image(ref)
    await driver.fetch_image(ref)
    assert driver.images.path(ref).read_bytes() == CONTENT
    assert store.asked == 1
