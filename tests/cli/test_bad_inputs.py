"""Files and words as users bring them by accident: one sentence with the remedy, exit status 2, nothing written.

tests/cli/test_bad_command_lines.py has wrong keys and values; here are what shells, editors, downloads and other
programs leave.
"""

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorta.cli.main import main
from lorta.config.places import CONF
from lorta.embedded import tasks

TINY_LLAMA = tasks.FINGERPRINTS.with_name("weights") / "tiny_llama"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
ROWS = [{"sentence1": f"one {row}", "sentence2": f"two {row}", "label": row % 2, "idx": row} for row in range(8)]


class Bad(NamedTuple):
    """A command, and what its one sentence must contain. `{tmp}` is the folder of all files."""

    words: list[str]
    expected: tuple[str, ...]


WORDS = {  # what a shell hands over
    "interval": Bad(["rank=interval(1,3)"], ("an interval has no values", "rank=1,2,3")),
    "interval in a sweep": Bad(["-m", "rank=interval(1,3)"], ("an interval has no values", "range(1,4)")),
    "tilde": Bad(["data.root=~/x", "task=glue/rte"], ("a value with ~ needs quotes inside", "\"data.root='~/x'\"")),
    "accent": Bad(["data.root=/tmp/données"], ("é needs quotes inside quotes", "\"data.root='/tmp/données'\"")),
    "umlaut": Bad(["runtime.runs=/ä"], ("\"runtime.runs='/ä'\"",)),
    "parentheses": Bad(["runtime.runs=/tmp/a(b)"], ("( needs quotes inside quotes", "'/tmp/a(b)'")),
    "equals sign": Bad(["runtime.runs=/tmp/a=b"], ("= needs quotes inside quotes",)),
    "brackets": Bad(["runtime.runs=/tmp/a[b]"], ("[ needs quotes inside quotes",)),
    "ampersand": Bad(["runtime.runs=/tmp/a&b"], ("& needs quotes inside quotes",)),
    "hash": Bad(["runtime.runs=/tmp/#1"], ("# needs quotes inside quotes",)),
    "apostrophe": Bad(["runtime.runs=/tmp/o'neil"], ("' needs quotes inside quotes", "'runtime.runs=\"/tmp/o'neil\"'")),
    "list with a space": Bad(["-m", "adapter=lora,", "lorta"], ("2 problems", "leave the comma out", "no spaces")),
    "comma at the end": Bad(["-m", "adapter=lora,lorta,"], ("a value is missing beside a comma",)),
    "two commas": Bad(["-m", "rank=4,,8"], ("a value is missing beside a comma",)),
    "empty word": Bad([""], ("an empty word", "variable of the shell")),
    "blank word": Bad([" "], ("an empty word",)),
    "space before =": Bad(["rank =4"], ("'rank '", "without spaces around")),
    "no key": Bad(["=4"], ("the key is missing",)),
    "open quote": Bad(['rank="4'], ('the quote " is not closed',)),
    "open bracket": Bad(["adapter.projections=[q"], ("[ and ] must come in pairs",)),
    "open brace": Bad(["adapter.config={r:3"], ("{ and } must come in pairs",)),
    "line break": Bad(["adapter=lora\n"], ("'adapter=lora\\n': leave the line break out",)),
    "superscript": Bad(["rank=²"], ("needs quotes inside quotes",)),
    "half a character": Bad(["data.root=\ud83d"], ("\\ud83d needs quotes",)),
    "no UTF-8": Bad(["adapter=\udcff"], ("\\udcff needs quotes",)),
    "package": Bad(["adapter@x=lora"], ("@x has no effect",)),
    "empty range": Bad(["-m", "seed=range(5,1)"], ("matches nothing", "name values")),
    "glob of a key": Bad(["-m", "rank=glob(*)"], ("matches nothing", "name values")),
    "unset variable": Bad(["runtime.runs=${oc.env:LORTA_NOT_SET}"], ("LORTA_NOT_SET",)),
    "a task called as a column": Bad(["task.name=average"], ("task.name=average: give it", "a column of tables")),
    "a task called as a folder": Bad(["task.name=../x"], ("task.name=../x: give it letters, digits",)),
    "a store that is a file": Bad([f"runtime.runs={__file__}"], ("it is a file, and the runs need a folder",)),
    "data that is no file": Bad(
        ["task=classification", "data.root=/dev/null", "data.holdout=0.1"],
        ("data.root=/dev/null: no such file or folder",),
    ),
    "unknown reference": Bad(["rank=${nothing}"], ("${nothing} refers to a key that does not exist",)),
}
RATES = b"learning_rate: 1e-3\nhead_learning_rate: 1e-3\nweight_decay: 0.0\n"
YAML = {  # name of conf/adapter/NAME.yaml -> content, and its sentence
    "tab": (b"name: mine\n\tx: 1\n", "tab.yaml, line 2: a tab: YAML is indented by spaces alone"),
    "tab_inside": (b"config:\n  r: 1\n\tx: 1\n", "tab_inside.yaml, line 3: a tab"),
    "list": (b"- a\n- b\n", "list.yaml: must hold keys and values (KEY: VALUE), and holds a list"),
    "text": (b"lora\n", "text.yaml: must hold keys and values (KEY: VALUE), and holds one value, 'lora'"),
    "latin": ("name: été\n".encode("latin-1"), "latin.yaml: not UTF-8"),
    "utf16": ("name: mine\n".encode("utf-16"), "utf16.yaml: not UTF-8"),
    "colon": (b"name: a: b\n", "colon.yaml, line 1: not YAML (mapping values are not allowed here)"),
    "quote": (b"name: 'mine\n", "quote.yaml, line 2: not YAML"),
    "pointer": (LFS.encode(), "pointer.yaml"),
    "twice": (b"name: a\nname: b\n", "twice.yaml, line 2: not YAML (found duplicate key name)"),
    "binary": (b"\x00\x01\x02", "binary.yaml: not YAML"),
    "builds_on_a_tab": (b"defaults: [tab]\nname: mine\n", "tab.yaml, line 2: a tab"),
    "no_rate": (
        b"name: mine\nrank: 4\n",
        "adapter=no_rate: its file lacks the key `learning_rate`, which other settings refer to",
    ),
    "no_target": (
        b"name: mine\n" + RATES,
        "adapter=no_target: the key `_target_` is missing",
    ),
    "strange_target": (b"_target_: nowhere.Adapter\nname: mine\n" + RATES, "cannot import 'nowhere.Adapter'"),
    "empty": (b"", "adapter=empty: its file lacks the key `learning_rate`"),
}


def cut(file: Path, bytes_left: int) -> None:
    file.write_bytes(file.read_bytes()[:bytes_left])


def edit(file: Path, change: Callable[[dict], None]) -> None:
    """Change the tensors of a file."""
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def emptied(tensors: dict) -> None:
    tensors.update({name: torch.empty(0) for name in tensors})


def with_nan(tensors: dict) -> None:
    tensors[min(tensors)].view(-1)[0] = float("nan")


def without_one(tensors: dict) -> None:
    del tensors[next(name for name in tensors if "lora_B" in name)]


WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {  # damage of a weights file -> its sentence
    "cut": (lambda file: cut(file, file.stat().st_size - 8), "it is cut off"),
    "cut_in_header": (lambda file: cut(file, 40), "it is cut off"),
    "empty_file": (lambda file: cut(file, 0), "it is no safetensors file: get it again"),
    "pointer": (lambda file: file.write_text(LFS), "it is a git-lfs pointer, not the file: run `git lfs pull`"),
    "page": (lambda file: file.write_text("<html>" * 90), "it is "),
}
ADAPTERS = {
    **WEIGHTS,
    "zero3": (lambda file: edit(file, emptied), "tensors are empty, such as base_model.model"),
    "nan": (lambda file: edit(file, with_nan), "holds NaN or infinite numbers"),
    "half": (lambda file: edit(file, without_one), "the LoRA lacks model.layers.0.self_attn"),
}
ADAPTER_CONFIGS = {  # content of adapter_config.json, and its sentence
    "torn": ("{", "it is not JSON"),
    "pointer": (LFS, "it is a git-lfs pointer"),
    "strange": ('{"peft_type": "NONE_SUCH"}', "it is a NONE_SUCH adapter, not LORA"),
}
CONFIGS = {
    "not_json": ("{", "is not JSON"),
    "pointer": (LFS, "it is a git-lfs pointer"),
    "list": ("[]", "must hold a JSON object, and holds '[]'"),
    "bom": ("\ufeff{}", "is not JSON (Unexpected UTF-8 BOM"),
    "nested": ("[" * 100_000, "is not JSON"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """conf with broken files, model and adapter folders, and data."""
    root = tmp_path_factory.mktemp("files")
    shutil.copytree(CONF, root / "conf", copy_function=os.link)
    for name, (content, _) in YAML.items():
        (root / f"conf/adapter/{name}.yaml").write_bytes(content)
    for name, (damage, _) in WEIGHTS.items():
        damage(model_folder(root / f"model_{name}") / "model.safetensors")
    for name, (content, _) in CONFIGS.items():
        (model_folder(root / f"config_{name}") / "config.json").write_text(content)
    (model_folder(root / "tokenizer_pointer") / "tokenizer.json").write_text(LFS)
    shards = model_folder(root / "shards")
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002.safetensors"}}))
    make_adapters(root)
    return root


def model_folder(folder: Path) -> Path:
    """The embedded decoder, its small files copied and its weights of one tensor."""
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY_LLAMA / name, folder)
    save_file({"weight": torch.zeros(64)}, folder / "model.safetensors")
    return folder


def make_adapters(root: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=8)
    shape.save_pretrained(root / "base")
    lora = LoraConfig(r=1, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(LlamaForCausalLM(shape), lora).save_pretrained(root / "lora")
    for name, (damage, _) in ADAPTERS.items():
        folder = Path(shutil.copytree(root / "lora", root / f"lora_{name}"))
        damage(folder / "adapter_model.safetensors")
    for name, (content, _) in ADAPTER_CONFIGS.items():
        folder = Path(shutil.copytree(root / "lora", root / f"adapter_config_{name}"))
        (folder / "adapter_config.json").write_text(content)


def cases() -> dict[str, Bad]:
    """All of them by name."""
    custom = ["task=glue/rte", "data.source=embedded", "model=custom"]
    fit = ["fit", "--base", "{tmp}/base", "--rank", "2", "--to", "new"]
    named: dict[str, Bad] = {name: Bad(["plan", *bad.words], bad.expected) for name, bad in WORDS.items()}
    for name, (_, sentence) in YAML.items():
        named[f"adapter file: {name}"] = Bad(["plan", f"adapter={name}"], (sentence,))
    for name, (_, sentence) in WEIGHTS.items():
        named[f"weights: {name}"] = Bad(["plan", *custom, f"model.path={{tmp}}/model_{name}"], (sentence,))
    for name, (_, sentence) in CONFIGS.items():
        named[f"config.json: {name}"] = Bad(["plan", *custom, f"model.path={{tmp}}/config_{name}"], (sentence,))
    for name, sentence in {
        "tokenizer_pointer": "tokenizer.json: it is a git-lfs pointer",
        "shards": "it names model-00002.safetensors, which is not there",
    }.items():
        named[name] = Bad(["plan", *custom, f"model.path={{tmp}}/{name}"], (sentence,))
    for name, (_, sentence) in ADAPTERS.items():
        named[f"LoRA: {name}"] = Bad([*fit, f"{{tmp}}/lora_{name}"], (sentence,))
    for name, (_, sentence) in ADAPTER_CONFIGS.items():
        named[f"adapter_config.json: {name}"] = Bad(
            [*fit, f"{{tmp}}/adapter_config_{name}"], (f"adapter_config.json: {sentence}",)
        )
    return named


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_says_what_to_do(name, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lorta.cli.run.CONF", files / "conf")
    bad = CASES[name]
    assert main([word.replace("{tmp}", str(files)) for word in bad.words]) == 2
    message = capsys.readouterr().err
    assert [part for part in bad.expected if part not in message] == [], message
    assert "Traceback" not in message
    wanted = 1 if bad.words[0] == "fit" else 3 if "2 problems" in bad.expected else 2
    assert len(message.strip().splitlines()) == wanted, message
    assert list(tmp_path.iterdir()) == []


def test_there_are_sixty_of_them():
    assert len(CASES) >= 60


@pytest.mark.parametrize(("word", "value"), [("rank=sort(8,4)", [4, 8]), ("adapter=lora, lorta", ["lora", "lorta"])])
def test_what_hydra_reads_is_read(word, value):
    from lorta.config.overrides import Problems, parse_overrides

    problems = Problems()
    assert list(parse_overrides([word], True, CONF, problems).values()) == [value]
    assert problems == []


@pytest.mark.parametrize("value", ["plain/path.txt", "a b", "it's", 'say "x"', "~/é", "a != b", "{x}"])
def test_a_typed_text_is_noted_as_it_can_be_typed_again(value):
    """A record's overrides are parsed again when its run is reloaded; `a != b` was refused then."""
    from lorta.config.grammar import as_word
    from lorta.config.overrides import Problems, parse_overrides

    problems = Problems()
    assert parse_overrides([as_word("runtime.runs", value)], False, CONF, problems) == {"runtime.runs": [value]}, (
        problems
    )


@pytest.mark.parametrize("name", ["é", "\udcff"])
def test_a_terminal_that_lacks_a_character_shows_its_escape(name, files, tmp_path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    words = ["fit", str(files / "lora"), "--base", str(files / "base"), "--rank", "2", "--to", str(tmp_path / name)]
    assert main([*words, "--restarts", "1", "--sweeps", "2"]) == 0
    shown.flush()
    assert name.encode("ascii", "backslashreplace") in shown.buffer.getvalue()
