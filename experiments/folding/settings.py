"""Settings of the folding task."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LossWeights:
    """What each term of the loss counts."""

    backbone_fape: float
    torsion: float
    angle_norm: float
    distogram: float
    plddt: float
