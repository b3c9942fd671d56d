"""Statistics of records: summaries, intervals, tests, verdicts, published numbers. Imports records and config."""
