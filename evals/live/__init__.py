"""Load on live servers: the same workloads and metrics as the replay, over HTTP."""
