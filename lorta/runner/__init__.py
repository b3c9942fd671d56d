"""One run, from its spec to its record. Imports planning, diagnostics and below."""
