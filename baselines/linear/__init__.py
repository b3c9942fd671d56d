"""Methods of our own with an update for each matrix: one tuner, and a file a method."""
