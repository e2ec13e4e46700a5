"""Pictures, tables and one page out of result files."""
