"""The `cumulog` entry of clouds.yaml: added or brought up to date, everything else in the file left as it is.

An entry is ours when it names our home in `cumulog_home` (a key the clients ignore). Anybody else's `cumulog` is not
touched. <home>/clouds.yaml always holds the entry too.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from bus.config import Settings

ENTRY = "cumulog"
_MARK = "cumulog_home"


class Foreign(Exception):
    """The file cannot be changed; the text says why."""


def write(settings: Settings, password: str) -> str:
    """Write the entry into <home>/clouds.yaml and the user's own; the path of the latter. Raises Foreign."""
    own = settings.home / "clouds.yaml"
    own.unlink(missing_ok=True)
    _put(own, _entry(settings, password))
    path = user_file()
    _put(path, _entry(settings, password))
    return str(path)


def user_file() -> Path:
    """Where the clients look: `OS_CLIENT_CONFIG_FILE`, else ~/.config/openstack/clouds.yaml."""
    named = os.environ.get("OS_CLIENT_CONFIG_FILE")
    if named:
        return Path(named).expanduser()
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "openstack" / "clouds.yaml"


def owner(path: Path) -> str | None:
    """Whose entry `cumulog` that file has: a home, "" for somebody else's, None when there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        known = (YAML(typ="safe").load(path.read_text()) or {}).get("clouds", {}).get(ENTRY)
    except (OSError, YAMLError, AttributeError):
        return None
    return None if known is None else str(known.get(_MARK, "")) if isinstance(known, dict) else ""


def _entry(settings: Settings, password: str) -> dict[str, Any]:
    return {
        _MARK: str(settings.home),
        "auth": {
            "auth_url": f"{settings.url}/identity/v3",
            "username": "admin",
            "password": password,
            "project_name": "admin",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
        "region_name": settings.region,
        "interface": "public",
        "identity_api_version": 3,
    }


def _put(path: Path, entry: dict[str, Any]) -> None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    path = path.resolve()
    try:
        before = path.read_text()
    except FileNotFoundError:
        before = ""
    except OSError as error:
        raise Foreign(f"{path} cannot be read ({error.strerror})") from None
    try:
        tree = yaml.load(before) if before.strip() else {}
    except YAMLError as error:
        raise Foreign(f"{path} is not YAML ({str(error).splitlines()[0]})") from None
    if tree is None:
        tree = {}
    clouds = tree.get("clouds") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not isinstance(clouds, dict | None):
        raise Foreign(f"{path} has no table of clouds")
    if clouds is None:
        clouds = tree["clouds"] = {}
    known = clouds.get(ENTRY)
    if known is None:
        clouds[ENTRY] = entry
    elif not isinstance(known, dict) or known.get(_MARK) != entry[_MARK]:
        whose = f"the Cumulog in {known[_MARK]}" if isinstance(known, dict) and known.get(_MARK) else "somebody else"
        raise Foreign(f"{path} has an entry {ENTRY} that {whose} wrote")
    else:
        _update(known, entry)
    text = io.StringIO()
    yaml.dump(tree, text)
    _replace(path, before, text.getvalue())


def _update(known: dict[str, Any], entry: dict[str, Any]) -> None:
    """Only what differs: comments and the user's own keys stay."""
    for key, value in entry.items():
        if isinstance(value, dict) and isinstance(known.get(key), dict):
            _update(known[key], value)
        elif known.get(key) != value:
            known[key] = value


def _replace(path: Path, before: str, after: str) -> None:
    if before == after and path.stat().st_mode & 0o077 == 0:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.touch(mode=0o600)
    aside.write_text(after)
    aside.replace(path)
