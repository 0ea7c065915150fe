"""The rules of placement: claims on providers, and which host a server goes to."""
