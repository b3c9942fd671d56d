"""LoRETTA, adapters of tensor-train factors (Yang et al. 2024, arXiv:2402.11417).

`shapes` holds the factorisations and closed-form counts (no torch), `tensor_train` the layers, `tuner` the two PEFT
tuners: import it before a checkpoint is loaded.
"""
