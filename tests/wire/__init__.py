"""Promises of the wire framework."""
