"""What a process tells about itself: /healthcheck for load balancers, /metrics for Prometheus.

The role that serves the API answers both on its port; every other one on <home>/run/<role>.sock, and on
`metrics_listen` where that is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from bus.cloud import Cloud
from bus.config import MEMORY
from bus.relay import CONSUMER as RELAY

log = structlog.get_logger()

HEALTH_SECONDS = 2.0
"""How long the log may take to answer before the process calls itself unhealthy."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_APPEND_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

_LAG = """
SELECT c.consumer, min(c.position) AS position, h.position - min(c.position) AS events,
       coalesce(extract(epoch FROM now() - (SELECT e.at FROM events e WHERE e.position > min(c.position)
                                            ORDER BY e.position LIMIT 1)), 0) AS seconds
FROM checkpoints c, head h GROUP BY c.consumer, h.position
"""
_PARKED = "SELECT consumer, count(*) AS streams FROM parked GROUP BY consumer"


class Metrics:
    """One process's registry, over its cloud; None for an agent, which has none."""

    def __init__(self, cloud: Cloud | None) -> None:
        self.cloud = cloud
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._append = Histogram(
            "cumulog_append_seconds",
            "Time of one append, which may carry many commands.",
            buckets=_APPEND_BUCKETS,
            registry=self.registry,
        )
        if cloud:
            cloud.executor.append_seconds = self._append.observe
        self._head = self._gauge("cumulog_log_position", "Position of the newest event in the log.")
        self._lag = self._gauge("cumulog_consumer_lag_events", "Events a consumer has yet to take.", "consumer")
        self._late = self._gauge(
            "cumulog_consumer_lag_seconds", "Age of the oldest event it has not taken.", "consumer"
        )
        self._parked = self._gauge("cumulog_parked_streams", "Streams set aside until a person looks.", "consumer")
        self._waiting = self._gauge("cumulog_queue_depth", "What waits in this process.", "queue")
        self._agents = self._gauge("cumulog_agents", "Hosts by what is known of their agents.", "state")
        self._depths: dict[str, Callable[[], int]] = {"commands": lambda: cloud.executor.waiting} if cloud else {}

    def depth(self, queue: str, measure: Callable[[], int]) -> None:
        """Report the length of a queue under that name."""
        self._depths[queue] = measure

    async def healthy(self) -> bool:
        """Whether the log answers in time."""
        if self.cloud is None:
            return True
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await self.cloud.log.head()
        except Exception as error:  # noqa: BLE001  whatever it is, the answer is no
            log.warning("unhealthy", error=repr(error))
            return False
        return True

    async def render(self) -> bytes:
        """The text Prometheus reads. What the log cannot tell just now is left as it was."""
        for queue, measure in self._depths.items():
            self._waiting.labels(queue).set(measure())
        if self.cloud is not None:
            await self._ask(self.cloud)
        return generate_latest(self.registry)

    async def _ask(self, cloud: Cloud) -> None:
        self._count_agents(cloud)
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await self._ask_the_log(cloud)
        except Exception as error:  # noqa: BLE001  a scrape must not fail because PostgreSQL is away
            log.warning("metrics without the log", error=repr(error))

    async def _ask_the_log(self, cloud: Cloud) -> None:
        self._head.set(await cloud.log.head())
        for row in await cloud.pool.fetch(_LAG):
            if row["consumer"] == RELAY and cloud.settings.bus == MEMORY:
                continue  # from a time when the bus was RabbitMQ
            self._lag.labels(row["consumer"]).set(row["events"])
            self._late.labels(row["consumer"]).set(max(float(row["seconds"]), 0) if row["events"] else 0)
        self._parked.clear()
        for row in await cloud.pool.fetch(_PARKED):
            self._parked.labels(row["consumer"]).set(row["streams"])

    def _count_agents(self, cloud: Cloud) -> None:
        hosts = cloud.mirrors.by_kind.get("host")
        if hosts is None:
            return
        alive = [getattr(document.state, "up", None) for document in hosts.values()]
        self._agents.labels("up").set(sum(1 for up in alive if up))
        self._agents.labels("down").set(sum(1 for up in alive if not up))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)


async def listen(metrics: Metrics, sites: Iterable[Callable[[web.BaseRunner], web.BaseSite]]) -> web.BaseRunner:
    """Answer /healthcheck and /metrics on these sites; clean the runner up in the end."""

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/metrics":
            return web.Response(body=await metrics.render(), headers={"Content-Type": CONTENT_TYPE})
        if request.path == "/healthcheck":
            good = await metrics.healthy()
            return web.Response(text="OK\n" if good else "the log does not answer\n", status=200 if good else 503)
        return web.Response(status=404)

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    for site in sites:
        await site(runner).start()
    return runner
