"""Where a model's files are, and how they are loaded with their tokenizer. Imports config and geometry."""
