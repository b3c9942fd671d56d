"""Folding: structures in, structures out, and how near they are."""
