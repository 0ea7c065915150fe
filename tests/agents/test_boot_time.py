"""A host tells when its machine was started."""

import time
from pathlib import Path

from agents.hypervisor.boot_time import booted_at


def test_the_machine_was_started_as_long_ago_as_its_kernel_counts():
    up_seconds = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(time.time() - up_seconds - booted_at()) < 5
