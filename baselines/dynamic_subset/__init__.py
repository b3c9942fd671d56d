"""Dynamic Subset Tuning: Stahlberg et al. 2024, arXiv:2411.08610."""
