"""Dequantises a GGUF file: python -m lorta.models.gguf_conversion FILE ROOT makes ROOT/model.

One process works at a time; others wait for it. Its unfinished folder has another name, and the next one removes it.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lorta.models.gguf import CARD
from lorta.records.file_modes import share
from lorta.records.locks import holder, take

WAIT_S = 0.2


def make_once(file: Path, root: Path, convert: Callable[[Path, Path], None]) -> None:
    """Have `convert` write the folder of a file, unless another process has done so, or does. A line says which."""
    said = False
    while not (root / "model" / CARD).is_file():
        if (claim := take(root)) is None:
            if not said and (other := holder(root)) is not None:
                print(f"{file.name} is being dequantised by {other}: waiting for it", file=sys.stderr)
                said = True
            time.sleep(WAIT_S)
            continue
        with claim:
            if not (root / "model" / CARD).is_file():
                print(f"{file.name} is dequantised once, into {root}", file=sys.stderr)
                unfinished = root / "unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)  # a killed process's
                shutil.rmtree(root / "model", ignore_errors=True)
                unfinished.mkdir()
                convert(file, unfinished)
                share(unfinished)
                unfinished.rename(root / "model")


def convert(file: Path, folder: Path) -> None:
    """Write the file's weights as float32 safetensors, its configuration, its tokenizer and a card into a folder.

    Raises ValueError for an architecture that transformers does not read, and for a file that lacks weights.
    """
    from transformers import AutoTokenizer

    alone = folder / "alone.gguf"  # transformers also reads what lies beside the file
    alone.symlink_to(file)
    card = _card(file)
    try:
        model = _plain_model(folder, alone.name)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=alone.name)
    except Exception as error:
        raise ValueError(
            f"transformers {version('transformers')} cannot read it (architecture {card['architecture']}): {error}"
        ) from error
    alone.unlink()
    tokenizer.model_max_length = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / CARD).write_text(json.dumps(card, indent=1))


def _plain_model(folder: Path, name: str) -> Any:
    """Return the file's model, with nothing in it that says quantised: its weights no longer are."""
    import torch
    from transformers import AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, output_loading_info=True
    )
    model, loading = read
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{len(missing)} weights are not in the file, such as {missing[0]}")
    config = model.config
    del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain


def _card(file: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    reader = GGUFReader(file)

    def text(key: str) -> str | None:
        entry = reader.get_field(key)
        return None if entry is None else str(entry.contents())

    kinds = sorted({tensor.tensor_type.name for tensor in reader.tensors})
    card = {"file": file.name, "architecture": text("general.architecture"), "license": text("general.license")}
    return card | {"types": kinds, "gguf": version("gguf"), "transformers": version("transformers")}


def main() -> None:
    """Do as the command line says; a reason for not doing it is the last line of the output."""
    from lorta.system.quiet import be_quiet

    be_quiet()
    try:
        make_once(Path(sys.argv[1]), Path(sys.argv[2]), convert)
    except Exception as error:
        print(f"{error}".replace("\n", " "))
        sys.exit(1)


if __name__ == "__main__":
    main()
