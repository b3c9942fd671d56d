"""Classification and regression of a user's own texts: CSV, TSV, JSON and Parquet files, own labels and metrics."""
