"""Read models over many streams, built from the log in order, rebuildable at any time."""

from __future__ import annotations

import importlib
import pkgutil

from bus.consumer import PROJECTIONS, Projection


def projections() -> dict[str, Projection]:
    """Every projection there is, by name. Importing this whole package is what finds them."""
    for module in pkgutil.walk_packages(__path__, "projections."):
        importlib.import_module(module.name)
    return PROJECTIONS
