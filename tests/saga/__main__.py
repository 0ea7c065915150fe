# ruff: noqa: T201  it is a command
"""`python -m tests.saga [PLAY …]` plays actions with everything that may go wrong; `--ill "FAULT at N"` with that."""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator

from tests.saga.playing import perform
from tests.saga.plays import PLAYS, Play
from tests.saga.stage import FAULTS, Fault, Happening, Ill

Case = tuple[tuple[Ill, ...], bool]
"""What goes wrong; and whether everything is done twice."""


def cases(happened: list[Happening]) -> Iterator[Case]:
    """Every fault at every step, and everything twice. What fails for good is undone: also with everything twice."""
    yield (), True
    for number, happening in enumerate(happened):
        for fault in FAULTS[happening.what]:
            yield (Ill(number, fault),), False
            if fault == "fail for good":
                yield (Ill(number, fault),), True


def undoings(play: Play, happened: list[Happening]) -> Iterator[Case]:
    """After each act that fails for good: the handlers die at each step of the way back."""
    for number, happening in enumerate(happened):
        if happening.what == "act" and happening.kind in play.undone:
            failed = Ill(number, "fail for good")
            for later in range(number + 1, len(perform(play, (failed,)).happened)):
                for fault in _KILLS:
                    yield (failed, Ill(later, fault)), False


_KILLS: tuple[Fault, ...] = ("kill handlers", "kill agents")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.saga", description=__doc__)
    parser.add_argument("plays", nargs="*", help=f"of {', '.join(PLAYS)}")
    parser.add_argument("--ill", action="append", default=[], help="what goes wrong, and no more")
    parser.add_argument("--twice", action="store_true", help="with --ill: and everything is done twice")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # a case is told by its number, which must be the same again
        command = [sys.executable, "-m", "tests.saga", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    warnings.simplefilter("ignore")  # of what the dead did not get to do
    broken = 0
    for name in arguments.plays or PLAYS:
        broken += _one(name, arguments.ill, arguments.twice) if arguments.ill else _every(name)
    return 1 if broken else 0


def _one(name: str, ills: list[str], twice: bool) -> int:
    found = tuple(Ill(int(number), fault) for fault, _, number in (ill.rpartition(" at ") for ill in ills))  # type: ignore[arg-type]
    outcome = perform(PLAYS[name], found, doubled=twice)
    print(*(f"{number:4} {it}" for number, it in enumerate(outcome.happened)), sep="\n")
    print(*(f"  BROKEN: {it}" for it in outcome.broken), sep="\n")
    return len(outcome.broken)


def _every(name: str) -> int:
    play, began, count, broken = PLAYS[name], time.process_time(), 1, 0
    good = perform(play)
    everything = [] if good.broken else [*cases(good.happened), *undoings(play, good.happened)]
    print(
        f"{name}: {len(good.happened)} steps", *(f"  BROKEN, though all is well: {it}" for it in good.broken), sep="\n"
    )
    broken += bool(good.broken)
    for ills, twice in everything:
        count += 1
        outcome = perform(play, ills, doubled=twice)
        if outcome.broken:
            broken += 1
            steps = ", ".join(
                f"{ill} ({good.happened[ill.at] if ill.at < len(good.happened) else '…'})" for ill in ills
            )
            print(f"  BROKEN, {steps or 'all'}{' twice' if twice else ''}: {outcome.broken[0][:400]}")
    print(f"{name}: {count} times, {broken} broken, {time.process_time() - began:.1f} s of CPU")
    return broken


if __name__ == "__main__":
    sys.exit(main())
