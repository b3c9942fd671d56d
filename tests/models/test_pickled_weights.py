"""A repository of the hub without safetensors is refused, as a folder is: pickled weights run code when loaded."""

import ast

import huggingface_hub
import pytest

from lorta.config.places import ROOT
from lorta.models.locate import _require_safetensors


def holds(monkeypatch, *names: str, cached: tuple[str, ...] = (), offline: bool = False) -> None:
    """A hub, or its cache, with these files."""
    monkeypatch.setattr(huggingface_hub, "file_exists", lambda _, name, revision: name in names)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda _, name, revision: name if name in cached else None
    )
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)


@pytest.mark.parametrize(
    ("names", "cached", "offline"),
    [(("pytorch_model.bin",), (), False), ((), ("pytorch_model.bin",), True)],
)
def test_pickled_weights_alone_are_refused(monkeypatch, names, cached, offline):
    holds(monkeypatch, *names, cached=cached, offline=offline)
    with pytest.raises(ValueError, match=r"model=m: o/m at c has no \*.safetensors"):
        _require_safetensors("o/m", "c", "m")


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_safetensors_are_taken_from_the_hub_or_its_cache(monkeypatch, name):
    holds(monkeypatch, "pytorch_model.bin", name)
    _require_safetensors("o/m", "c", "m")
    holds(monkeypatch, cached=("pytorch_model.bin", name), offline=True)
    _require_safetensors("o/m", "c", "m")


def test_a_hub_that_does_not_say_leaves_it_to_loading(monkeypatch):
    def refuse(*_, **__) -> bool:
        raise OSError("no answer")

    holds(monkeypatch)
    monkeypatch.setattr(huggingface_hub, "file_exists", refuse)
    _require_safetensors("o/m", "c", "m")


def test_every_model_is_loaded_from_safetensors_alone():
    """Where the hub does not say what a repository holds, loading is the last to refuse."""
    calls = [
        (file.name, {keyword.arg for keyword in node.keywords})
        for package in ("lorta", "experiments", "baselines")
        for file in sorted((ROOT / package).rglob("*.py"))
        if "from_pretrained" in (text := file.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
    ]
    models = [(name, keywords) for name, keywords in calls if "dtype" in keywords and "gguf_file" not in keywords]
    assert len(models) >= 6
    assert [name for name, keywords in models if "use_safetensors" not in keywords] == []
