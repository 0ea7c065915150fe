"""Read models over many streams, built from the log in order, rebuildable at any time."""
