"""Figures of a report: what a panel shows, how methods are drawn, and files for papers."""
