"""The report page: tables, plots and records of a suite in one HTML file that needs no network."""
