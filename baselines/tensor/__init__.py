"""Methods whose updates of many matrices are one tensor: shared factors, places in the tensor, a file a method."""
