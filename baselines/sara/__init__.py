"""SaRA: Hu et al. 2024, arXiv:2409.06633."""
