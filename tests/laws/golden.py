"""Golden events: what each event looked like in the log when it was first written.

`python -m tests.laws.golden` writes tests/golden/<Event>.json for every event that has none. Files are never changed
nor removed: the log holds such events for ever, and today's code must read them.
"""

from __future__ import annotations

import msgspec

from tests.laws.discovery import ROOT, all_events
from tests.laws.samples import sample

FOLDER = ROOT / "tests" / "golden"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for event in all_events():
        path = FOLDER / f"{event.__name__}.json"
        if not path.exists():
            path.write_bytes(msgspec.json.format(msgspec.json.encode(sample(event)), indent=2) + b"\n")
            print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201  it is a command


if __name__ == "__main__":
    main()
