"""The control plane's side of one host, as small as a test needs it, over the in-process broker."""

import asyncio
from collections.abc import Callable
from typing import Any

from agents.hypervisor.agent import Agent
from agents.hypervisor.driver import Driver
from agents.link import BrokerLink
from bus.memory_broker import MemoryBroker
from schema.compute import question
from schema.compute.domain import (
    Desired,
    Domain,
    Heartbeat,
    Lease,
    Observed,
    Report,
    decode_from_host,
    encode,
)
from schema.compute.question import Answer, Ask, ConsoleOutput, ConsoleText, decode_answer


class Control:
    """Grants leases while `granting`, remembers the last word on every server, and waits for what should come."""

    def __init__(self, host: str = "host-1") -> None:
        self.host = host
        self.broker = MemoryBroker()
        self.epoch = 1
        self.position = 0
        self.granting = True
        self.manifest: tuple[Domain, ...] | None = ()
        self.manifest_position = 0
        self.reports: list[Report] = []
        self.beats: list[Heartbeat] = []
        self.observed: dict[str, Observed] = {}
        self.removed: set[str] = set()
        self._news = asyncio.Condition()
        self._agent: asyncio.Task[None] | None = None
        self._listening = False

    async def start_agent(self, driver: Driver, **options: Any) -> Agent:
        if not self._listening:
            await self.broker.listen(self._hear)
            self._listening = True
        agent = Agent(self.host, driver, BrokerLink(await self.broker.link(self.host)), **options)
        self._agent = asyncio.create_task(agent.run())
        return agent

    async def stop_agent(self) -> None:
        if self._agent:
            self._agent.cancel()
            await asyncio.gather(self._agent, return_exceptions=True)

    async def close(self) -> None:
        await self.stop_agent()
        await self.broker.close()

    async def tell(
        self, *domains: Domain, full: bool = False, position: int | None = None, epoch: int | None = None
    ) -> None:
        if position is None:
            self.position += 1
            position = self.position
        epoch = self.epoch if epoch is None else epoch
        await self.broker.tell(self.host, encode(Desired(epoch=epoch, domains=domains, full=full, position=position)))

    async def console(self, server_id: str, lines: int | None = None) -> str:
        answer = await self.ask(ConsoleOutput(server_id=server_id, lines=lines))
        assert isinstance(answer, ConsoleText)
        return answer.fault or answer.text

    async def ask(self, ask: Ask) -> Answer:
        return decode_answer(await self.broker.ask(self.host, question.encode(ask), 10))

    async def until(self, condition: Callable[[], Any], timeout_seconds: float = 5) -> Any:
        """What the condition comes to, as soon as that is true of what the host said."""
        async with self._news:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await self._news.wait_for(condition)
            except TimeoutError:
                if self._agent and self._agent.done():
                    self._agent.result()
                raise AssertionError(f"not within {timeout_seconds} s; last heard: {self.observed}") from None

    async def seen(self, server_id: str, power: str, timeout_seconds: float = 5, generation: int = 0) -> Observed:
        def there() -> Observed | None:
            word = self.observed.get(server_id)
            good = word and word.power == power and word.generation >= generation and not word.progress
            return word if good else None

        return await self.until(there, timeout_seconds)

    async def _hear(self, host: str, message: bytes) -> None:
        word = decode_from_host(message)
        async with self._news:
            if isinstance(word, Heartbeat):
                self.beats.append(word)
                if self.granting:
                    await self.broker.tell(host, encode(Lease(epoch=self.epoch, beat=word.beat)))
                    if word.manifest_wanted and self.manifest is not None:
                        await self.tell(*self.manifest, full=True, position=self.manifest_position)
            else:
                self.reports.append(word)
                self.observed |= {it.server_id: it for it in word.observed}
                self.removed |= set(word.removed)
            self._news.notify_all()
