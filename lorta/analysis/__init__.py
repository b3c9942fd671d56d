"""What scores allow to conclude: intervals, verdicts, when to stop adding seeds, and where the variance comes from."""
