"""Every action of many steps, with each of its steps failed, done twice, and broken off."""
