"""Refusals that many of Neutron's rules share, in its words."""

from __future__ import annotations

from schema.refusal import Invalid


def invalid_input(text: str) -> Invalid:
    """What somebody asks for contradicts itself, or what is there."""
    return Invalid(f"Invalid input for operation: {text}.", code="InvalidInput")


def bad_request(resource: str, text: str) -> Invalid:
    return Invalid(f"Bad {resource} request: {text}.", code="BadRequest")
