# ruff: noqa: T201  it is a command
"""`python -m tests.simulation --seed N` lives through one seed again; without, through as many as time allows."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

from tests.simulation.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="this seed only, with the events of its log")
    parser.add_argument("--story", default="", help="with --seed: the events of the log with this in them")
    parser.add_argument("--first", type=int, default=0, help="the first of many")
    parser.add_argument("--count", type=int, default=2000, help="how many, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="no new one after so long")
    parser.add_argument("--break", dest="broken", default="", help="break something on purpose first")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets are iterated now and then: the order must be the same again
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    if arguments.broken:
        importlib.import_module("tests.simulation.broken").apply(arguments.broken)
    if arguments.seed is not None:
        outcome = run(arguments.seed)
        print(f"seed {outcome.seed}: {outcome.events} events, {outcome.seconds:.0f} s, log {outcome.digest}")
        print(*(line for line in outcome.story if arguments.story in line), sep="\n") if arguments.story else None
        print(*(f"  BROKEN: {law}" for law in outcome.broken), sep="\n")
        return 1 if outcome.broken else 0
    began = time.process_time()
    done = events = 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        outcome = run(seed)
        done, events = done + 1, events + outcome.events
        if outcome.broken:
            print(f"seed {seed} breaks the law:", *outcome.broken[:10], sep="\n  ")
            how = f" --break {arguments.broken}" if arguments.broken else ""
            print(f"replay it: python -m tests.simulation --seed {seed}{how}")
            return 1
        if time.process_time() - began > arguments.seconds:
            break
    seconds = time.process_time() - began
    print(f"{done} schedules, {events} events, no law broken, {seconds:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
