"""How busy the machine's CPUs are, by Nova's names for it: shares of the time since they were read before.

/proc/stat  ──▶  cpu.percent, cpu.user.percent, cpu.kernel.percent, cpu.idle.percent, cpu.iowait.percent
"""

from __future__ import annotations

from pathlib import Path

DIGITS = 3


class Meter:
    """One reader's memory of the last time."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._before = self._ticks()

    def read(self) -> dict[str, float]:
        """Nothing where the kernel does not say, or no time has passed."""
        before, self._before = self._before, self._ticks()
        spent = [now - then for now, then in zip(self._before, before, strict=False)]
        whole = sum(spent)
        if len(spent) < len(_COLUMNS) or whole <= 0:
            return {}
        user, nice, system, idle, waiting = spent[: len(_COLUMNS)]
        shares = {
            "cpu.percent": whole - idle - waiting,
            "cpu.user.percent": user + nice,
            "cpu.kernel.percent": system,
            "cpu.idle.percent": idle,
            "cpu.iowait.percent": waiting,
        }
        return {name: round(ticks / whole, DIGITS) for name, ticks in shares.items()}

    def _ticks(self) -> list[int]:
        try:
            first = self._stat.read_text().partition("\n")[0]
        except OSError:
            return []
        return [int(word) for word in first.split()[1:9]]


_COLUMNS = ("user", "nice", "system", "idle", "iowait")
"""How the line begins, see proc(5)."""
