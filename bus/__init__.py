"""The log and everything that moves with it: appending, reading, relaying, consuming."""
