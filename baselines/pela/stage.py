"""PELA's intermediate stage: the compressed model learns from text and from the original, once, then from a cache."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, get_cosine_schedule_with_warmup

from baselines.pela.low_rank import perturbation

VERSION = 1  # raised when the stage's code moves its result
IGNORED = -100  # cross_entropy's own mark for "no target here"


@dataclass(frozen=True)
class Stage:
    """Settings of the stage. Rates are per step of AdamW, batches in rows. Raises ValueError for bad values."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup: float  # share of the steps
    language_weight: float
    feature_weight: float
    perturbation_weight: float
    perturbation_bound: float
    masked_words: float  # share; decoders mask none
    seed: int

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not 0 < self.masked_words < 1:
            raise ValueError(
                f"PELA's stage needs epochs >= 0, batch_size >= 1 and 0 < masked_words < 1, got {self.epochs}, "
                f"{self.batch_size} and {self.masked_words}."
            )


@dataclass(frozen=True)
class Words:
    """What masking must know of a vocabulary. `mask` is None for decoders, which predict the next word."""

    mask: int | None
    special: tuple[int, ...]
    size: int
    padding: int


def recover(backbone: Any, original: nn.Module, ratio: float, stage: Stage) -> dict[str, Any]:
    """Bring the compressed `backbone.model` through the stage, or from the cache; return what is to be said of it.

    torch's generator is left as it was, so that what follows does not depend on whether the cache knew the result.
    """
    student = backbone.model.base_model
    _check(backbone, student)
    texts = [list(ids) for ids in backbone.rows["input_ids"]]
    key = _key(backbone, original, texts, ratio, stage)
    folder = None if backbone.cache is None else Path(backbone.cache) / "pela"
    if folder is not None and (folder / f"{key}.json").is_file():
        student.load_state_dict(load_file(folder / f"{key}.safetensors"), strict=True)
        return json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
    words = _words(backbone, student)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(stage.seed)
        language_model = with_language_head(backbone, student, words.mask is None)
        losses = pretrain(student, original, language_model, batches(texts, words, stage), stage, len(texts))
    card = {"key": key, "rows": len(texts), "steps": len(losses), "settings": asdict(stage)}
    card |= {"language_head": language_model is not None}
    card |= {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}
    if folder is not None:
        _store(student, card, folder / key)
    return card


def _check(backbone: Any, student: nn.Module) -> None:
    if getattr(backbone, "rows", None) is None:
        raise ValueError("PELA pre-trains on the task's text, and this backbone has no rows: set backbone.rows.")
    rounded = next((path for path, weight in student.named_parameters() if weight.dtype != torch.float32), None)
    if rounded:
        raise ValueError(f"PELA pre-trains in float32, and {rounded} is rounded: set model.dtype=fp32.")


def _words(backbone: Any, student: Any) -> Words:
    tokenizer, config = backbone.tokenizer, backbone.model.config
    causal = any(getattr(module, "is_causal", False) for module in student.modules())
    mask = None if causal else getattr(tokenizer, "mask_token_id", None)
    if mask is None and not causal:
        raise ValueError("PELA masks words, and this encoder's tokenizer has no mask token: choose another adapter.")
    special = tuple(getattr(tokenizer, "all_special_ids", None) or ())
    return Words(mask, special, int(config.vocab_size), int(config.pad_token_id or 0))


def _key(backbone: Any, original: nn.Module, texts: Sequence[Sequence[int]], ratio: float, stage: Stage) -> str:
    """Return the SHA-256 of everything that the result depends on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu {torch.get_num_threads()}"
    settings = {"version": VERSION, "ratio": ratio, "stage": asdict(stage), "torch": torch.__version__}
    settings["checkpoint"] = backbone.files.fingerprint if backbone.files else None  # its language head, see below
    digest = hashlib.sha256(json.dumps([settings, device, texts], sort_keys=True).encode())
    config: Any = original.config
    kept = {name: value for name, value in config.to_dict().items() if name not in ("_name_or_path", "id2label")}
    digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    for path, weight in original.state_dict().items():
        digest.update(f"{path} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _store(student: nn.Module, card: dict[str, Any], stem: Path) -> None:
    """Write weights, then the card, each in one move: a card means that the weights are whole."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    weights = {path: weight.detach().cpu().contiguous() for path, weight in student.state_dict().items()}
    for ending, write in (
        (".safetensors", lambda file: save_file(weights, file)),
        (".json", lambda file: Path(file).write_text(json.dumps(card, sort_keys=True), encoding="utf-8")),
    ):
        temporary = Path(f"{stem}.{uuid4().hex}")
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes its files readable to their owner alone
        temporary.replace(f"{stem}{ending}")


def with_language_head(backbone: Any, student: nn.Module, causal: bool) -> nn.Module | None:
    """Return the checkpoint's own language model around the student, None where the checkpoint has no language head.

    A fresh head in its place would be learnt from nothing and pull the student along (on the embedded tasks the stage
    then did harm), so that without one the stage goes by features and perturbation alone.
    """
    if backbone.files is None:
        return None
    loader: Any = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    model, report = loader.from_pretrained(
        backbone.files.location,
        revision=backbone.files.revision or "main",
        dtype=torch.float32,
        use_safetensors=True,  # pickled weights are never loaded
        trust_remote_code=False,
        output_loading_info=True,
    )
    prefix = model.base_model_prefix
    if any(not key.startswith(f"{prefix}.") for key in report["missing_keys"]):
        return None
    setattr(model, prefix, student)
    model.tie_weights()  # a decoder tied to the word embeddings now belongs to the student's
    return model


def pretrain(
    student: nn.Module,
    original: nn.Module,
    language_model: nn.Module | None,
    data: Iterable[tuple[Tensor, Tensor, Tensor]],
    stage: Stage,
    rows: int,
) -> list[float]:
    """Train the student in place; return the loss of every step. Deterministic given torch's generator."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    was_training, home = student.training, next(student.parameters()).device
    losses: list[float] = []
    original = original.to(device).eval().requires_grad_(False)
    model = (language_model or student).to(device).train().requires_grad_(True)
    pairs = {path: module.weight for path, module in original.named_modules() if _is_pair(student, path)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay)
    steps = stage.epochs * -(-rows // stage.batch_size)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(stage.warmup * steps), steps)
    for batch in data:
        ids, attention, targets = (part.to(device) for part in batch)
        loss = stage_loss(model, original, ids, attention, targets, stage, has_head=language_model is not None)
        loss = loss + stage.perturbation_weight * perturbation(student, pairs, stage.perturbation_bound)  # pyright: ignore[reportArgumentType]
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    student.to(home).train(was_training)
    return losses


def _is_pair(student: nn.Module, path: str) -> bool:
    return bool(path) and isinstance(student.get_submodule(path), nn.Sequential)


def stage_loss(
    model: Any, original: Any, ids: Tensor, attention: Tensor, targets: Tensor, stage: Stage, has_head: bool
) -> Tensor:
    """Return the weighted sum of the feature loss and, with a language head, the model's own loss, of a batch."""
    labels = {"labels": targets} if has_head and bool((targets != IGNORED).any()) else {}  # no target: NaN
    outputs = model(input_ids=ids, attention_mask=attention, output_hidden_states=True, **labels)
    with torch.no_grad():
        wanted = original(input_ids=ids, attention_mask=attention, output_hidden_states=True)
    features = feature_loss(outputs.hidden_states[1:], wanted.hidden_states[1:], attention.bool())
    return stage.feature_weight * features + (stage.language_weight * outputs.loss if labels else 0.0)


def feature_loss(hidden: Sequence[Tensor], wanted: Sequence[Tensor], words: Tensor) -> Tensor:
    """Return the mean over blocks of the squared distance of hidden states, over the words that are no padding."""
    return torch.stack(
        [functional.mse_loss(one[words], other[words]) for one, other in zip(hidden, wanted, strict=True)]
    ).mean()


def batches(texts: Sequence[Sequence[int]], words: Words, stage: Stage) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (ids, attention, targets) for all epochs, each (rows, longest), in a new order every epoch."""
    for _ in range(stage.epochs):
        for rows in torch.randperm(len(texts)).split(stage.batch_size):
            chosen = [torch.tensor(texts[row]) for row in rows.tolist()]
            ids = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=words.padding)
            lengths = torch.tensor([len(row) for row in chosen])
            attention = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
            shown, targets = exercise(ids, attention.bool(), words, stage.masked_words)
            yield shown, attention, targets


def exercise(ids: Tensor, real: Tensor, words: Words, share: float) -> tuple[Tensor, Tensor]:
    """Return (ids as they are shown, targets): masked words (80 % mask, 10 % random, 10 % kept), or all for a decoder.

    A decoder's own loss compares each target with the word before it.
    """
    if words.mask is None:
        return ids, ids.masked_fill(~real, IGNORED)
    ordinary = real & ~torch.isin(ids, torch.tensor(words.special, dtype=ids.dtype))
    chosen = ordinary & (torch.rand(ids.shape) < share)
    fate = torch.rand(ids.shape)
    shown = ids.masked_fill(chosen & (fate < 0.8), words.mask)
    shown = torch.where(chosen & (fate >= 0.9), torch.randint(words.size, ids.shape), shown)
    return shown, ids.masked_fill(~chosen, IGNORED)
