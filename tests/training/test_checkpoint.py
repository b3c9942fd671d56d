"""A run that stopped and went on is bit by bit the run that never stopped, whatever the method keeps in mind."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from experiments.classification import train_classifier
from lorta.records.store import write_atomically
from lorta.system.preemption import Preempted, handle_preemption_signals
from lorta.training import checkpoint, recovery
from lorta.training.checkpoint import Checkpoints, stateless
from lorta.training.context import DataSplits, TrainingContext
from lorta.training.recovery import CheckpointUnusable, settings_of_checkpoint, whole_checkpoint, write_checksums
from tests.contract.backbones import ADAPTERS, adapter, backbone
from tests.training.test_trainer import Padding, settings

ROWS = 26  # the last batch of an epoch is short
KEEPING_STATE = ("adalora", "deep_lora_compressed", "dst", "metatt_5d", "sara", "soda")
CHANGES = {
    "metatt_5d": {"config": {"sweeps": [[1, 2]]}},  # lowers the rank after the first epoch
    "soda": {"config": {"rotation": "stiefel"}},
}


class StopAt(TrainerCallback):
    """Ends the work at one step, as a kill would, or asks the process to leave."""

    def __init__(self, step: int, signal_instead: bool) -> None:
        self.step, self.signal_instead = step, signal_instead

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            if not self.signal_instead:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGUSR1)

    def state_dict(self, model):
        return {}

    def load_state_dict(self, state, model):
        pass


def method(name: str):
    found = adapter(name)
    change = CHANGES.get(name, {})
    return replace(found, config={**found.config, **change["config"]}) if change else found


def train(name: str, folder: Path, every: int | None, stop: int = -1, signal_instead: bool = False, **changes):
    """Train with a checkpoint every so many steps, stopped at one; return trained weights and what was written."""
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 60, (4 + index % 5,), generator=generator).tolist() for index in range(ROWS)]
    masks, labels = [[1] * len(row) for row in ids], [index % 2 for index in range(ROWS)]
    rows = Dataset.from_dict({"input_ids": ids, "attention_mask": masks, "labels": labels})
    set_seed(0)
    base = backbone("roberta")
    for module in base.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1  # so that random generators matter
    torch.manual_seed(3)
    tuned = method(name)
    model = tuned.attach(base, "SEQ_CLS")
    checkpoints = Checkpoints(folder / "checkpoint", {}, every, None)
    callbacks = [*tuned.callbacks(), StopAt(stop, signal_instead)]
    assert stateless(callbacks) == []
    values = {"lr_scheduler_type": "cosine", "head_learning_rate": 1e-2} | changes
    base = replace(base, tokenizer=Padding())
    scores = lambda: float(sum(weight.sum() for weight in model.parameters() if weight.requires_grad))  # noqa: E731
    splits, own = DataSplits(rows, rows), settings(**values)
    context = TrainingContext(base, splits, own, 0, folder / "run", callbacks, checkpoints)
    outcome = train_classifier(model, context, rows, scores)
    tuned.save(model, folder / "adapter")
    files = {file.name: file.read_bytes() for file in sorted((folder / "adapter").iterdir())}
    counts = (outcome.tokens, outcome.samples, outcome.padded_fraction, outcome.steps, outcome.best_epoch)
    return files, outcome.history, counts, checkpoints.step


def interrupted(name: str, folder: Path, every: int, stop: int, **changes):
    with pytest.raises(KeyboardInterrupt):
        train(name, folder, every, stop, **changes)
    return train(name, folder, every, **changes)


@pytest.mark.parametrize(("every", "stop"), [(9, 10), pytest.param(3, 5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KEEPING_STATE)
def test_a_method_that_keeps_state_goes_on_as_if_nothing_had_happened(name, every, stop, tmp_path):
    *expected, _ = train(name, tmp_path / "whole", None)
    *found, step = interrupted(name, tmp_path / "again", every, stop)
    assert step == every
    assert found == expected


QUICK = ("full", "lorta")
OTHERS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in ADAPTERS
    if name not in KEEPING_STATE
]


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_method_does_too(name, tmp_path):
    *expected, _ = train(name, tmp_path / "whole", None)
    *found, step = interrupted(name, tmp_path / "again", 5, 6)
    assert step == 5
    assert found == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"group_by_length": False, "shuffle_groups": False},
        {"shuffle_groups": False},
        {"gradient_accumulation_steps": 3},
        {"selection": "best"},
        pytest.param({"max_steps": 10}, marks=pytest.mark.slow),
        pytest.param({"num_train_epochs": 1.5}, marks=pytest.mark.slow),
        pytest.param({"max_grad_norm": 0.5, "weight_decay": 0.1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_way_to_train_goes_on_as_if_nothing_had_happened(changes, tmp_path):
    *expected, _ = train("lora", tmp_path / "whole", None, **changes)
    for every, stop in ((3, 4), (1, 3) if "gradient_accumulation_steps" in changes else (7, 8)):  # also between epochs
        *found, step = interrupted("lora", tmp_path / str(every), every, stop, **changes)
        assert step == stop - stop % every
        assert found == expected


def test_a_checkpoint_of_other_code_is_not_used(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("lora", tmp_path, 3, 5)
    assert Checkpoints(tmp_path / "checkpoint", {}, None, None).step == 3
    changed = Checkpoints(tmp_path / "checkpoint", {"commit": "a"}, None, None)
    assert changed.step is None
    assert changed.refused == "started again instead of at step 3: commit changed since"


def test_a_checkpoint_killed_while_it_is_written_is_not_used(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("lora", tmp_path, 3, 7)
    (tmp_path / "checkpoint" / "6").rename(tmp_path / "checkpoint" / ".writing-6")
    assert Checkpoints(tmp_path / "checkpoint", {}, None, None).step is None


def test_a_checkpoint_is_never_unpickled(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train("lora", tmp_path, 3, 5)
    torch.save(Path("/"), tmp_path / "checkpoint" / "3" / "state.pt")
    sum_up(tmp_path / "checkpoint" / "3")
    found = Checkpoints(tmp_path / "checkpoint", {}, None, None)
    assert found.step is None
    assert "the checkpoint cannot be read (Weights only load failed" in found.refused


def test_every_method_can_be_restored():
    assert {name: found for name in ADAPTERS if (found := stateless(adapter(name).callbacks()))} == {}


def test_a_callback_that_cannot_be_restored_is_named():
    assert stateless([StopAt(1, False), TrainerCallback()]) == ["TrainerCallback"]


def test_a_request_to_leave_waits_for_a_checkpoint(tmp_path):
    *expected, _ = train("lora", tmp_path / "whole", None)
    with handle_preemption_signals(), pytest.raises(Preempted) as left:
        train("lora", tmp_path / "again", None, stop=4, signal_instead=True)
    assert left.value.step == 5
    *found, step = train("lora", tmp_path / "again", None)
    assert step == 5
    assert found == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The checkpoint of a run that was stopped after its third step."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.raises(KeyboardInterrupt):
        train("lora", folder, 3, 5)
    return folder / "checkpoint"


def flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES = ("state.pt", "trainer_state.json", "card.json", "checksums.json")
HARMS = {
    "torn": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "missing": Path.unlink,
    "flipped": flip_bit,
    "a folder": to_folder,
}


def change_state(change):
    """Damage that checksums do not tell of: the tensors are written anew, and summed up."""

    def damage(step: Path) -> None:
        state = torch.load(step / "state.pt", weights_only=True)
        change(state)
        torch.save(state, step / "state.pt")
        sum_up(step)

    return damage


def sum_up(step: Path) -> None:
    (step / "checksums.json").unlink()
    write_checksums(step)


def rename(step: Path) -> None:
    step.rename(step.parent / "4")


def empty_folder(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def a_file_instead(step: Path) -> None:
    shutil.rmtree(step)
    step.write_text("")


def nest(step: Path) -> None:
    (step / "card.json").write_text("[" * 200_000)
    sum_up(step)


def stray(step: Path) -> None:
    (step.parent / "9").write_text("")


FOUND_BEFORE_TRAINING = {
    **{
        f"{name} {harm}": lambda step, name=name, do=do: do(step / name) for name in FILES for harm, do in HARMS.items()
    },
    "empty folder": empty_folder,
    "a file instead": a_file_instead,
    "of another step": rename,
    "nested too deep": nest,
    "a stray file of a later step": stray,
    "a part missing": change_state(lambda state: state.pop("optimizer")),
}
FOUND_IN_TRAINING = {
    "other shapes": lambda state: state["weights"].update(
        {name: w.new_zeros(9, 99, 9) for name, w in state["weights"].items()}
    ),
    "larger shapes": lambda state: state["weights"].update(
        {name: w.new_zeros([n + 1 for n in w.shape]) for name, w in state["weights"].items()}
    ),
    "other weights": lambda state: state.update(weights={}),
    "other optimizer": lambda state: state.update(optimizer={"state": {}, "param_groups": []}),
    "optimizer of other shapes": lambda state: [
        kept.update(exp_avg=torch.zeros(1)) for kept in state["optimizer"]["state"].values()
    ],
    "no generators": lambda state: state.update(generators={}),
}


@pytest.mark.parametrize("damage", FOUND_BEFORE_TRAINING)
def test_a_damaged_checkpoint_means_to_start_again(damage, whole, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(whole, folder)
    FOUND_BEFORE_TRAINING[damage](folder / "3")
    assert settings_of_checkpoint(settings(), whole_checkpoint(folder)) == settings()
    opened = Checkpoints(folder, {}, 3, None)
    assert opened.step is None
    assert opened.refused.startswith("started again instead of at step ")
    assert not folder.exists()


@pytest.mark.parametrize("damage", FOUND_IN_TRAINING)
def test_a_checkpoint_that_does_not_fit_means_to_start_again(damage, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "checkpoint")
    change_state(FOUND_IN_TRAINING[damage])(tmp_path / "checkpoint" / "3")
    with pytest.raises(CheckpointUnusable, match="started again instead of at step 3: "):
        train("lora", tmp_path, 3)


def test_every_file_of_a_checkpoint_is_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """Trainer's own file was left in a buffer: a power cut tore it."""
    synced: set[str] = set()

    def noted(path: Path, content: str | bytes) -> None:
        synced.add(path.name)
        write_atomically(path, content)

    for module in (checkpoint, recovery):
        monkeypatch.setattr(module, "write_atomically", noted)
    train("lora", tmp_path, 3)
    (step,) = (tmp_path / "checkpoint").iterdir()
    assert {file.name for file in step.iterdir()} == synced


def test_a_file_in_place_of_the_checkpoints_means_to_start_again(tmp_path):
    (tmp_path / "checkpoint").write_text("")
    opened = Checkpoints(tmp_path / "checkpoint", {}, 3, None)
    assert (opened.step, opened.refused) == (None, "started again: checkpoint is a file, no folder of checkpoints")


def test_what_lies_beside_a_checkpoint_is_no_obstacle(whole, tmp_path):
    """A stray file and a file named like the next step, which removing and renaming met before."""
    shutil.copytree(whole, tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "notes.txt").write_text("")
    (tmp_path / "checkpoint" / "3" / "notes.txt").write_text("")
    *_, step = train("lora", tmp_path, 3)
    assert step == 3
