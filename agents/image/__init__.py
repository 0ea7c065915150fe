"""The built-in guest image."""
