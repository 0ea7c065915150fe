"""The supervisor's small print: one process for ever, and logs that do not fill the disk."""

import os
import subprocess
import sys

from api.cli import processes
from api.cli.supervisor import trim


def test_a_process_id_alone_names_nobody(tmp_path):
    processes.record(tmp_path, "api", os.getpid())
    assert processes.find(tmp_path, "api").pid == os.getpid()
    path = tmp_path / "api.pid"
    before = path.read_text()
    path.write_text(before.replace('"started":"', '"started":"9'))
    assert processes.find(tmp_path, "api") is None
    path.write_text(before.replace('"boot":"', '"boot":"0'))
    assert processes.find(tmp_path, "api") is None
    path.write_text("nonsense")
    assert processes.find(tmp_path, "api") is None


def test_a_process_that_ended_is_gone_though_nobody_collected_it(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = processes.record(tmp_path, "all", child.pid)
    assert processes.wait(process, 10)
    assert processes.find(tmp_path, "all") is None
    child.wait()


def test_a_process_that_ignores_requests_is_killed(tmp_path):
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"1\n"
        process = processes.record(tmp_path, "all", child.pid)
        assert not processes.stop(process, 0.1, kill=False)
        assert processes.stop(process, 0.1)


def test_a_log_past_its_limit_begins_anew_and_its_writer_goes_on(tmp_path):
    path = tmp_path / "api.log"
    with path.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 100)
        trim(tmp_path, limit_bytes=100)
        writer.write(b"new\n")
    assert path.read_bytes() == b"new\n"
    assert (tmp_path / "api.log.1").read_bytes() == b"old\n" * 100
