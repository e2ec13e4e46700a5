"""Metrics: one per file, each a pure function from a run's records to a value of `results.json`."""
