"""Whether recorded runs still come out the same. Imports runner and below."""
