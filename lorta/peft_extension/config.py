"""Configurations of tuners that PEFT does not ship: what their type must look like, and what their model card says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftConfig

CARD = "README.md"
HEADING = "## Loading this adapter"


class ExternalType(str):
    """The name of a tuner that PEFT does not ship, with what callers ask of a member of PEFT's closed enum.

    transformers and PEFT write `peft_type.value`, and PEFT reads the name behind the dot of `str(peft_type)`.
    """

    @property
    def value(self) -> str:
        """The plain name."""
        return str.__str__(self)

    def __str__(self) -> str:
        return f"PeftType.{self.value}"

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)


@dataclass
class ExternalConfig(PeftConfig):
    """Base of the configurations of tuners that PEFT does not ship. A subclass sets `peft_type` to its plain name."""

    card_note: ClassVar[str] = ""  # one more sentence for the card that is saved beside an adapter

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "peft_type" and type(value) is str:
            value = ExternalType(value)
        super().__setattr__(name, value)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write the configuration, and into PEFT's model card beside or above it how to load the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        for folder in (Path(save_directory), Path(save_directory).parent):  # PEFT writes one card for all adapters
            if (folder / CARD).is_file() and (text := (folder / CARD).read_text(encoding="utf-8")):
                if "library_name: peft" in text and HEADING not in text:
                    (folder / CARD).write_text(f"{text.rstrip()}\n\n{self.loading_note()}", encoding="utf-8")
                return

    def loading_note(self) -> str:
        """Return what a reader of the card must do before loading: an import, without which PEFT knows no such type."""
        module = type(self).__module__.removesuffix(".config")
        lines = [
            HEADING,
            "",
            f"PEFT does not ship {self.peft_type}; import `{module}` before loading, or PEFT answers `KeyError`:",
            "",
            "```python",
            f"import {module}",
            "from peft import PeftModel",
            "",
            "model = PeftModel.from_pretrained(base_model, folder)",
            "```",
        ]
        return "\n".join([*lines, *(["", self.card_note] if self.card_note else []), ""])
