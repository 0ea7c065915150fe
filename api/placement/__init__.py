"""Placement's door: OpenStack's placement API, 1.0 to 1.39."""
