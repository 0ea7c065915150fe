"""Image v2 on the wire, as Glance answers."""
