"""The weights of an adapter as PEFT saves them, without a question to a model hub."""

from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor


def adapter_weights(model: PeftModel, adapter_name: str = "default") -> dict[str, Tensor]:
    """Return the weights that belong into an adapter's file, by the names that they have there.

    Embeddings are among them where their number differs from that of the base model. PEFT asks the hub for that number;
    here only a folder or the local cache is read, and a base model that is in neither counts as unchanged.
    """
    resized = _embeddings_were_resized(model, model.peft_config[adapter_name].base_model_name_or_path)
    return get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=resized)


def _embeddings_were_resized(model: Any, base: str | None) -> bool:
    own: Any = getattr(model, "config", None)
    if not base or getattr(own, "vocab_size", None) is None:
        return False
    try:
        saved = type(own).from_pretrained(base, local_files_only=True)
    except (OSError, ValueError):
        return False
    return saved.vocab_size != own.vocab_size
