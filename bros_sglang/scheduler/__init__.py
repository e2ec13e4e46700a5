"""Thin subclasses of SGLang's scheduler classes: they translate between its objects and the pure decisions."""
