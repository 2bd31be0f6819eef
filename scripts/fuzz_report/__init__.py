"""Sends broken requests to a live server and looks at what becomes of it (`scripts/fuzz`)."""
