"""Sources: no import runs against the arrows, time and chance come from the clock, every module says what it is."""

import ast

import pytest

from tests.laws.discovery import LAYERS, ROOT, all_sources, name_of, tree

pytestmark = pytest.mark.law

MAY_IMPORT = {
    "schema": {"schema"},
    "bus": {"bus", "schema"},
    "handlers": {"handlers", "projections", "bus", "schema"},
    "projections": {"projections", "bus", "schema"},
    "agents": {"agents", "bus", "schema"},
    "api": {"api", "handlers", "projections", "bus", "schema"},
    "api/cli": set(LAYERS),
}
"""Layer → layers it may import. The command line puts everything together."""

OUTSIDE_THE_CLOCK = {
    "bus/clock.py": "is the clock",
    "api/cli/processes.py": "notes when a real process began",
}
"""Module → why it may ask the machine for time, ids or randomness itself."""
FORBIDDEN_CALLS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "time.time",
    "time.time_ns",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid4",
    "os.urandom",
}
FORBIDDEN_MODULES = {"random", "secrets"}
SIMULATED = ("schema/", "handlers/", "projections/", "bus/execute", "bus/consumer", "bus/mirror", "bus/memory_")
"""What runs in a simulation measures by the clock, too; elsewhere real daemons and real guests are waited for."""


def test_no_import_runs_against_the_arrows():
    assert _broken_by(_against_the_arrows) == []


def test_time_and_chance_come_from_the_clock():
    assert _broken_by(_past_the_clock, but=OUTSIDE_THE_CLOCK) == []


def test_modules_say_what_they_are():
    assert _broken_by(lambda name, it: [] if not it.body or ast.get_docstring(it) else ["opens with no sentence"]) == []


def test_nothing_is_left_for_later():
    found = [
        f"{name_of(path)}: line {number}"
        for path in all_sources()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if {"TODO", "FIXME", "XXX"} & set(line.replace(":", " ").split())
    ]
    assert found == [], "done, or deleted"


def test_broken_sources_are_caught():
    def caught(law, name, source):
        return bool(law(name, ast.parse(source)))

    assert caught(_against_the_arrows, "bus/x.py", "from handlers.compute.server import SERVERS")
    assert caught(_against_the_arrows, "schema/compute/x.py", "import bus.clock")
    assert caught(_against_the_arrows, "handlers/x.py", "def f():\n    from api.wire import Call")
    assert not caught(_against_the_arrows, "api/cli/x.py", "from agents.host import Host")
    assert caught(_past_the_clock, "agents/x.py", "import datetime\ndatetime.datetime.now()")
    assert caught(_past_the_clock, "agents/x.py", "import uuid\nuuid.uuid4()")
    assert caught(_past_the_clock, "handlers/x.py", "import time\ntime.monotonic()")
    assert caught(_past_the_clock, "api/x.py", "from random import choice")
    assert not caught(_past_the_clock, "api/x.py", "from bus import clock\nclock.uuid4()")


@pytest.mark.parametrize("layer", [layer for layer in LAYERS if layer != "bus"])
def test_features_lie_at_the_same_path_in_every_layer(layer):
    services = {path.name for path in (ROOT / "schema").iterdir() if path.is_dir() and not path.name.startswith("_")}
    own = {"agents": {"hypervisor", "network", "volume"}, "api": {"wire", "cli", "log"}}.get(layer, set())
    found = {path.name for path in (ROOT / layer).iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert found <= services | own, f"{sorted(found - services - own)} are no services of the schema"


def _broken_by(law, but=()):
    """`file: what is wrong`, over all sources."""
    return [
        f"{name_of(path)}: {wrong}"
        for path in all_sources()
        if name_of(path) not in but
        for wrong in law(name_of(path), tree(path))
    ]


def _against_the_arrows(name, module_tree):
    layer = "api/cli" if name.startswith("api/cli/") else name.partition("/")[0]
    return [
        f"line {node.lineno}: {layer} must not import {module}"
        for node in ast.walk(module_tree)
        for module in _imported(node)
        if module.partition(".")[0] in {*LAYERS, "tests"} - MAY_IMPORT[layer]
    ]


def _past_the_clock(name, module_tree):
    found = []
    for node in ast.walk(module_tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            last_two = ".".join(called.split(".")[-2:])
            measured = last_two == "time.monotonic" and name.startswith(SIMULATED)
            if (last_two in FORBIDDEN_CALLS or measured) and not called.startswith("clock."):
                found.append(f"line {node.lineno}: {called}() — ask bus.clock")
        modules = {module.partition(".")[0] for module in _imported(node)}
        found += [f"line {node.lineno}: {module} — ask bus.clock" for module in modules & FORBIDDEN_MODULES]
    return found


def _imported(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or ""]
    return []
