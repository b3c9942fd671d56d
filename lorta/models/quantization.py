"""How frozen weights are held: by bitsandbytes in 8 or 4 bits, or in floating point."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from lorta.config.settings import Quantization
from lorta.models.locate import ModelFiles
from lorta.system.optional_libraries import BITSANDBYTES, require


def quantised(files: ModelFiles) -> bool:
    """Return whether a model's weights are held in few bits: as the settings ask, or as its checkpoint has them."""
    return files.quantization is not None or "quantization_config" in files.config


def quantization_settings(bits: Quantization | None, compute: Any, head: Sequence[str] = ()) -> Any:
    """Return bitsandbytes' settings: LLM.int8() (arXiv:2208.07339), or QLoRA's nf4 (arXiv:2305.14314), not nested.

    `head` are the modules of a classification head, which is trained and stays in floating point.
    """
    if bits is None:
        return None
    require(BITSANDBYTES, f"model.quantization={bits}")
    from transformers import BitsAndBytesConfig

    spared: dict[str, Any] = (
        {"llm_int8_skip_modules": list(head)} if head else {}
    )  # of 4 bits as well, in spite of its name
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, **spared)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute, **spared)


def quantization_of(model: Any) -> Quantization | None:
    """Return in how many bits a loaded model's projections are held, None for floating point."""
    kinds = {"Int8Params": get_args(Quantization)[0], "Params4bit": get_args(Quantization)[1]}
    return next((kinds[name] for weight in model.parameters() if (name := type(weight).__name__) in kinds), None)


def dtype_of(model: Any) -> str:
    """Return the dtype of a loaded model's weights in floating point: fp32, bf16, or all there are, most weights first.

    Weights that bitsandbytes holds are left out.
    """
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
    sizes: Counter[str] = Counter()
    for weight in model.parameters():
        name = str(weight.dtype).removeprefix("torch.")
        if name in short:
            sizes[short[name]] += weight.numel()
    return "+".join(name for name, _ in sizes.most_common())
