"""Clients that nobody here wrote, each completing a run with classes set against a live server on the CPU."""
