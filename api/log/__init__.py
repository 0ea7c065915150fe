"""The log's own doors: events as they come, a thing's story, and why it is as it is."""
