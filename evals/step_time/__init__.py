"""How long one forward pass takes: from the shape of model and GPU, or fitted to measured passes."""
