"""Ranked lists: fused, calibrated, made into passages, judged. Pure functions, no state."""
