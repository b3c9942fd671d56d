"""The harness: composes configurations, plans runs, executes them, and turns their records into tables."""
