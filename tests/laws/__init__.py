"""Laws: what holds for every aggregate, event, route and import there is, found by looking, not by listing."""
