"""KV memory: who holds which slots, what is evicted first, whom preemption costs least."""
