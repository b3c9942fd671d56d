"""PEFT's sparse tuners with a whole number of trained entries a matrix, which a budget can decide.

PEFT asks for a share of the entries, a fraction that the YAML works out from `entries` for the matrix at hand. What is
saved is PEFT's own configuration.
"""

from dataclasses import dataclass
from typing import Any

from peft import FrodConfig, SupertuningConfig


@dataclass
class FrodEntriesConfig(FrodConfig):
    """FRoD with a number of off-diagonal entries. Raises ValueError for a negative one."""

    entries: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entries < 0:
            raise ValueError(f"FrodEntriesConfig.entries must be at least 0, got {self.entries}.")

    def to_dict(self) -> dict[str, Any]:
        """Return PEFT's settings."""
        return {key: value for key, value in super().to_dict().items() if key != "entries"}


@dataclass
class SupertuningEntriesConfig(SupertuningConfig):
    """Super-Tuning with a number of entries. Raises ValueError for less than one."""

    entries: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.entries < 1:
            raise ValueError(f"SupertuningEntriesConfig.entries must be at least 1, got {self.entries}.")

    def to_dict(self) -> dict[str, Any]:
        """Return PEFT's settings."""
        return {key: value for key, value in super().to_dict().items() if key != "entries"}
