"""QuanTA, updates that are circuits of small matrices on pairs of axes."""
