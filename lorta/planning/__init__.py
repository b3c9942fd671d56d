"""Which runs a command line means: specs, budgets, searches of learning rates. Imports api and below, no torch."""
