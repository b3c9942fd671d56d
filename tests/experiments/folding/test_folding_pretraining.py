"""The shipped ESMFold: loadable offline, small, and rebuilt by its script."""

import hashlib
import json
from dataclasses import asdict

import pytest
import torch
from torch.testing import assert_close
from transformers import EsmForProteinFolding

from experiments.folding.pretraining import Recipe, pretrain
from lorta.embedded.folds import FOLDS_REVISION
from lorta.embedded.tasks import FINGERPRINTS
from tests.experiments.folding.esmfold import settings

FOLDER = FINGERPRINTS.with_name("weights") / "tiny_esmfold"
REBUILT_STEPS = 6


@pytest.fixture(scope="module")
def card():
    return json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))


def test_the_card_describes_the_files_and_the_recipe_that_made_them(card):
    for name, digest in card["sha256"].items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert card["recipe"] == asdict(Recipe())
    assert card["textbook_revision"] == FOLDS_REVISION


def test_the_weights_are_below_two_megabytes():
    assert (FOLDER / "model.safetensors").stat().st_size < 2 * 2**20


def test_it_was_pretrained_on_the_task_s_losses():
    task = settings().task
    assert asdict(Recipe().weights) == task["losses"]
    assert Recipe().clamped_share == task["clamped_share"]


def test_it_loads_as_the_published_class_and_nothing_is_missing():
    model, report = EsmForProteinFolding.from_pretrained(FOLDER, output_loading_info=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_first_steps_of_pretraining_are_rebuilt(card):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = [loss for loss, _ in pretrain(Recipe(), stop_after=REBUILT_STEPS)]
    torch.set_num_threads(threads)
    # Sums in another order on another machine move the fourth digit after a few steps.
    assert_close(torch.tensor(losses), torch.tensor(card["first_losses"][:REBUILT_STEPS]), rtol=5e-3, atol=0.0)
