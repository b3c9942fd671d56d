"""How far a sweep is, and what the rest will cost, from records alone. Imports planning and below, no torch."""
