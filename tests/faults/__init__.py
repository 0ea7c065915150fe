"""A running cloud of many processes, and what is done to it from outside."""
