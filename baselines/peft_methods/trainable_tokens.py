"""PEFT's trainable tokens with a whole number of tokens, which a budget can decide, and with a trained head."""

from dataclasses import dataclass
from typing import Any

from peft import TrainableTokensConfig

KNOWN_HEADS = ("classifier", "score")  # that PEFT trains and loads unasked


@dataclass
class FirstTokensConfig(TrainableTokensConfig):
    """The first `tokens` entries of the vocabulary. Raises ValueError for less than one.

    PEFT's configuration has no `modules_to_save`, and PEFT finds a classifier's head without; what is saved is PEFT's.
    """

    tokens: int = 1
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens < 1:
            raise ValueError(f"FirstTokensConfig.tokens must be at least 1, got {self.tokens}.")
        self.token_indices = list(range(self.tokens))

    def to_dict(self) -> dict[str, Any]:
        """Return PEFT's settings."""
        return {key: value for key, value in super().to_dict().items() if key not in ("tokens", "modules_to_save")}


def require_known_head(backbone: Any, config: Any) -> None:
    """Raise ValueError for a classifier whose head PEFT would not load again."""
    if hasattr(backbone.model, "classification_head"):
        raise ValueError(f"trainable tokens: PEFT knows no head but {', '.join(KNOWN_HEADS)}: loading would lose it.")
