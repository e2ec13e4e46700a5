"""Measurements of the KV memory: allocator speed, locality under churn, what eviction takes."""
