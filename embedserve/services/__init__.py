"""Use cases: what the server does, whatever dialect asked for it."""
