"""The figures of placement can be taken, whatever they are."""

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "placement.py"


def test_placement_is_measured():
    done = subprocess.run(
        [sys.executable, BENCH, "200", "puts", "48"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = [line.partition("  ")[0] for line in done.stdout.splitlines()]
    assert measured == [
        "candidates of 200, any host",
        "candidates of 200, few hosts",
        "candidates of 200, three groups",
        "PUT /allocations at 16",
        "GET /allocations at 16",
        "DELETE /allocations at 16",
    ]
