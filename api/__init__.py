"""The doors: the OpenStack wire over HTTP, and the command line."""
