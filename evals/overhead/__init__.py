"""What scheduling costs: time per pass of SGLang's scheduler and of what bros adds to it."""
