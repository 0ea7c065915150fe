"""Whatever fails, is said twice or dies in the middle of an action: one guest on one host, and nothing is left over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.saga.plays import PLAYS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", PLAYS)
def test_whatever_happens_there_is_one_server_and_nothing_is_left(name: str):
    """In a process of its own: a case is told by its number, which is the same where sets are ordered the same."""
    played = subprocess.run(
        [sys.executable, "-m", "tests.saga", name],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr[-2000:]
