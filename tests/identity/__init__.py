"""Promises of Identity."""
