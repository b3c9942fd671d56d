"""PELA: Guo et al. 2023, arXiv:2310.10700."""
