"""Measurements, as `python -m benchmarks.speed` and the like; nothing here is needed to train or draw."""
