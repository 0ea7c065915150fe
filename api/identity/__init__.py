"""Identity v3 on the wire, as Keystone answers."""
