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


def from_options(options: dict[str, Any]) -> dict[str, str]:
    """Options of the command line as variables; those that were not given are left out."""
    return {f"CUMULOG_{key.upper()}": str(value) for key, value in options.items() if value is not None}


def remember(home: Path, chosen: dict[str, str]) -> None:
    """These are the choices from now on."""
    _keep(home / "run" / "choices.json", chosen)


def in_force(home: Path) -> Settings | None:
    """What the cloud was last started with, as far as that can be read."""
    try:
        return msgspec.json.decode((home / "run" / "settings.json").read_bytes(), type=Settings, dec_hook=_path)
    except (OSError, msgspec.DecodeError):
        return None


def put_in_force(settings: Settings) -> None:
    """The cloud is about to be started with these."""
    _keep(settings.home / "run" / "settings.json", settings)


def _keep(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_bytes(msgspec.json.encode(value, enc_hook=str))
    aside.rename(path)


def _path(_kind: type, value: Any) -> Path:
    return Path(value)


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
