"""Thin subclasses of SGLang's scheduler classes, between its objects and the pure decisions."""
