"""The words of networking."""
