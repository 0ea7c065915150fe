"""Hundreds of schedules in each run of the tests; and things broken on purpose, which must not go unnoticed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.broken import WAYS

ROOT = Path(__file__).parents[2]
SCHEDULES = int(os.environ.get("CUMULOG_SCHEDULES", "500"))
"""In each of the two parts, at most; and no new one begins after SECONDS of CPU."""
SECONDS = float(os.environ.get("CUMULOG_SIMULATION_SECONDS", "25"))


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a seed replays only where sets are ordered the same way."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("part", [0, 1])
def test_no_schedule_breaks_a_law(part: int, record_property):
    done = simulate("--first", str(part * 1_000_000), "--count", str(SCHEDULES), "--seconds", str(SECONDS))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    record_property("schedules", done.stdout.strip())
    print(done.stdout)  # noqa: T201  how many it were this time


@pytest.mark.parametrize("seed", [1, 3, 42])
def test_a_seed_replays(seed: int):
    first, second = simulate("--seed", str(seed)), simulate("--seed", str(seed))
    assert first.stdout == second.stdout
    assert "log " in first.stdout


@pytest.mark.parametrize("way", sorted(WAYS))
def test_what_is_broken_on_purpose_is_caught(way: str):
    done = simulate("--break", way, "--seconds", "100", "--count", "2000")
    assert done.returncode == 1, f"nobody noticed {way}: {done.stdout}"
    assert "breaks the law" in done.stdout
    again = simulate(*done.stdout.partition("replay it: python -m tests.simulation ")[2].split())
    assert again.returncode == 1
    assert "BROKEN" in again.stdout
