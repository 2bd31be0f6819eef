"""A model on disk: named, fetched, exported, quantized, measured, verified."""
