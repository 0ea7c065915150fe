"""The words of Identity: domains, projects, users, groups, roles, grants, catalog, signing keys, revocations."""
