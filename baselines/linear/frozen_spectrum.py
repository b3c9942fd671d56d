"""Branches whose trained numbers belong to a decomposition of the frozen weight that loading makes again."""

from typing import Any

from torch import Tensor, nn

TOLERANCE = 1e-3  # of the largest value; decompositions on two devices agree much better


class FrozenSpectrum(nn.Module):
    """Saves the values of a decomposition, not its frames, and compares them when it is loaded.

    For maps that do not depend on the signs of the frames. Loading on a layer with other values raises ValueError.
    """

    checkpoint = "checkpoint"  # what the error calls it

    def __init__(self, left: Tensor, spectrum: Tensor, right: Tensor) -> None:
        """`left` (outputs, k), `spectrum` (k), `right` (k, inputs)."""
        super().__init__()
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("right", right, persistent=False)
        self.register_buffer("spectrum", spectrum)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved, own = state_dict.get(f"{prefix}spectrum"), self.get_buffer("spectrum")
        if saved is not None and not own.is_meta and not saved.is_meta:
            same = saved.shape == own.shape
            if not same or (saved.to(own) - own).abs().max() > TOLERANCE * own.abs().max():
                raise ValueError(
                    f"'{prefix}spectrum' of this {self.checkpoint} is not that of the base weight: load it on the "
                    "model that it was trained on."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)
