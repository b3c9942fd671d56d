"""SODA, spectral orthogonal decomposition adaptation (Zhang et al. 2024, arXiv:2405.21050).

`factors` holds the sizes of the small rotations and closed-form counts (no torch), `rotation` the Kronecker rotation
and its optimizer, `tuner` the PEFT tuner: import it before a checkpoint is loaded.
"""
