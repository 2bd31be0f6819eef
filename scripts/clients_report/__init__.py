"""Runs the real client libraries against a live server; `scripts/clients` starts it."""
