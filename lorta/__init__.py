"""LoRTA (arXiv:2410.04060) and the harness that compares it with other ways of fine-tuning few parameters."""
