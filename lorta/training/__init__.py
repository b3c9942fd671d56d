"""The loop around transformers' and TRL's trainers: rates, checkpoints, measurements. Imports models and below."""
