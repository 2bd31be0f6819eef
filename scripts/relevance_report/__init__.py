"""Fits the relevance of a model on judged sets."""
