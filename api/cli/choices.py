"""What the last `up` was told, so that the next one, and every other verb, means the same cloud.

Kept in <home>/run/choices.json as environment variables. Real environment variables win over them, options over both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from bus import clock
from bus.config import Settings, default_home, load


def settings(**options: Any) -> Settings:
    """The settings of the cloud these choices made. Raises bus.config.ConfigurationError."""
    home = load().home
    chosen = remembered(home)
    return load({**chosen, **os.environ, "CUMULOG_HOME": str(home)}, **options)


def remembered(home: Path) -> dict[str, str]:
    """CUMULOG_… variables of the last `up`."""
    try:
        return msgspec.json.decode((home / "run" / "choices.json").read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def remember(home: Path, options: dict[str, Any]) -> dict[str, str]:
    """Add what was asked for on the command line; all choices afterwards."""
    chosen = remembered(home) | {f"CUMULOG_{key.upper()}": str(value) for key, value in options.items() if value}
    path = home / "run" / "choices.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_bytes(msgspec.json.encode(chosen))
    aside.rename(path)
    return chosen


def admin_password(home: Path) -> str:
    """The admin's first password: <home>/admin-password, made when it is first asked for."""
    path = home / "admin-password"
    with suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(clock.password(20) + "\n")
    return path.read_text().strip()


def environment(settings: Settings) -> dict[str, str]:
    """What a process of this cloud is started with."""
    root = str(Path(__file__).resolve().parents[2])
    chosen = {**remembered(settings.home), **os.environ}
    chosen["CUMULOG_HOME"] = str(settings.home)
    chosen["CUMULOG_HYPERVISOR"] = settings.hypervisor
    chosen["PYTHONPATH"] = root
    config = chosen.get("CUMULOG_CONFIG")
    if config:
        chosen["CUMULOG_CONFIG"] = str(Path(config).expanduser().absolute())
    elif (default_home() / "cumulog.toml").exists() and default_home() != settings.home:
        chosen["CUMULOG_CONFIG"] = str(default_home() / "cumulog.toml")
    return chosen
