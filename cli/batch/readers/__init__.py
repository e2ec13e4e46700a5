"""One reader per input format; each yields `Row`s and never holds a file in memory."""
