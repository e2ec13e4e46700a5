"""Checks and measurements of `bros batch`: killed runs, and speed beside a plain client."""
