"""The `bros` command line."""
