"""Things at rest: the catalog, which is the truth, and Chroma, which is derived from it."""
