"""What a host's agent answers when it is asked of a guest: a case for each question of `schema/compute/question.py`."""

from __future__ import annotations

from agents.hypervisor.driver import Driver, StepFailed
from schema.compute.question import Answer, Ask, ConsoleOutput, ConsoleText, Unable


class Answering:
    """Answers for one host. Nothing of it is under the lease: it changes nothing a host should hold."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def answer(self, ask: Ask) -> Answer:
        match ask:
            case ConsoleOutput():
                try:
                    return ConsoleText(text=await self._driver.console(ask.server_id, ask.lines))
                except StepFailed as failure:
                    return ConsoleText(fault=str(failure))
        return Unable(fault="its agent does not know such a question", why="unsupported")
