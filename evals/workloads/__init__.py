"""Traffic: traced, sampled or synthetic requests, as every benchmark of this project sends them."""
