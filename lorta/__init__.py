"""LoRTA (arXiv:2410.04060) and the harness that compares it with other ways of fine-tuning few parameters."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorta.tuner import LortaConfig, LortaLinear, LortaModel

__version__ = "0.1.0"  # the only place: pyproject.toml reads it here
__all__ = ["LortaConfig", "LortaLinear", "LortaModel", "__version__"]


def __getattr__(name: str) -> Any:
    """Return what `lorta.tuner` offers; it is imported when it is asked for, and torch and PEFT with it."""
    if name not in __all__:
        raise AttributeError(f"module 'lorta' has no attribute '{name}'")
    from lorta import tuner

    return getattr(tuner, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
