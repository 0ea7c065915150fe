"""The hands on a host's networks."""
