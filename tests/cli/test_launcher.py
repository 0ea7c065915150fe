"""The launcher, in a checkout of its own: installs once, hands over, installs again only when it must."""

import fcntl
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """\
[project]
name = "x"
dependencies = []
[project.optional-dependencies]
extra = []
broken = ["no-such-package-of-cumulog ==9.9.9"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh one."""
    return _checkout(tmp_path / "checkout")


@pytest.fixture(scope="module")
def used_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose environment is made already."""
    folder = _checkout(tmp_path_factory.mktemp("launcher") / "checkout")
    assert run(folder).returncode == 7
    return folder


def _checkout(folder: Path) -> Path:
    """A tree with a launcher, nothing to install, and a command line that repeats its arguments."""
    (folder / "api" / "cli").mkdir(parents=True)
    shutil.copy(ROOT / "cumulog", folder)
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "api" / "__init__.py").touch()
    (folder / "api" / "cli" / "__init__.py").touch()
    (folder / "api" / "cli" / "__main__.py").write_text("import sys\nprint(sys.prefix, sys.argv[1:])\nsys.exit(7)\n")
    return folder


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "cumulog", *arguments], cwd="/", capture_output=True, text=True, check=False, timeout=120
    )


def test_it_installs_once_and_hands_over_arguments_and_exit_code(checkout):
    first = run(checkout, "up", "--hosts", "3")
    assert first.stdout == f"{checkout / '.venv'} ['up', '--hosts', '3']\n"
    assert first.returncode == 7
    assert "making a Python environment" in first.stderr
    assert run(checkout, "status").stderr == ""


def test_it_looks_again_when_what_it_needs_has_changed(used_checkout):
    stamp = used_checkout / ".venv" / ".cumulog-base"
    before = stamp.read_text()
    (used_checkout / "pyproject.toml").write_text(PROJECT + "# changed\n")
    run(used_checkout)
    assert stamp.read_text() != before


def test_an_extra_is_installed_without_handing_over(used_checkout):
    prepared = run(used_checkout, "--prepare", "extra")
    assert (prepared.returncode, prepared.stdout) == (0, "")
    unknown = run(used_checkout, "--prepare", "nonsense")
    assert unknown.returncode == 1
    assert "nonsense" in unknown.stderr


def test_an_environment_that_was_left_half_made_is_made_again(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    assert run(checkout).returncode == 7


def test_two_at_once_install_once(checkout):
    with (checkout / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen([checkout / "cumulog"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "waiting for it" in waiting.stderr.readline()
        assert not (checkout / ".venv").exists()
    waiting.communicate(timeout=120)
    assert waiting.returncode == 7


def test_a_failed_installation_says_so_and_can_be_repeated(used_checkout):
    failed = run(used_checkout, "--prepare", "broken")
    assert failed.returncode == 1
    assert "no-such-package-of-cumulog" in failed.stderr
    assert "again" in failed.stderr
    assert run(used_checkout).returncode == 7


def test_it_is_fast_when_there_is_nothing_to_do(used_checkout):
    run(used_checkout)  # whatever another test has changed
    started = time.monotonic()
    run(used_checkout)
    assert time.monotonic() - started < 1.0
