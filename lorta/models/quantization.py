"""How frozen weights are held in 8 or 4 bits, by bitsandbytes."""

from typing import TYPE_CHECKING, Any

from lorta.config.settings import Quantization

if TYPE_CHECKING:
    pass


def quantization_settings(bits: Quantization | None, compute: Any) -> Any:
    """Return bitsandbytes' settings: LLM.int8() (arXiv:2208.07339), or QLoRA's nf4 (arXiv:2305.14314), not nested."""
    if bits is None:
        return None
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)
