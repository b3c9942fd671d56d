"""Crops, padding and recycles: seeded, within bounds, and nothing lost."""

from collections import Counter

import torch
from torch.testing import assert_close
from transformers import AutoTokenizer
from transformers.models.esm.openfold_utils import residue_constants as constants

from experiments.folding.batches import TargetRows, TrainingBatches, collate, residue_numbers
from experiments.folding.target import Target
from lorta.embedded.folds import fold_rows
from lorta.embedded.tasks import FINGERPRINTS

TARGETS = [Target(*row) for row in fold_rows("validation")]


def test_residues_have_alphafold_s_numbers_and_unknown_letters_the_last():
    assert residue_numbers("ARNX?U") == [0, 1, 2, 20, 20, 20]


def test_the_shipped_tokenizer_says_the_same():
    tokenizer = AutoTokenizer.from_pretrained(FINGERPRINTS.with_name("weights") / "tiny_esmfold")
    sequence = "".join(constants.restypes_with_x)
    assert tokenizer(sequence, add_special_tokens=False)["input_ids"] == residue_numbers(sequence)


def test_a_batch_is_as_long_as_its_longest_chain_and_masked_behind_the_others():
    batch = collate(TARGETS[:5])
    lengths = [len(target.sequence) for target in TARGETS[:5]]
    assert batch["attention_mask"].sum(dim=1).tolist() == lengths
    assert batch["input_ids"].shape == (5, max(lengths))
    assert_close(batch["positions"][0, : lengths[0]], torch.from_numpy(TARGETS[0].positions))
    assert batch["atom_mask"].sum().item() == sum(target.mask.sum() for target in TARGETS[:5])


def test_a_crop_is_one_stretch_and_every_stretch_is_drawn():
    target, crops = TARGETS[0], TrainingBatches(len(TARGETS[0].sequence) - 2, 0, False, 0)
    drawn = Counter(crops.cropped(target).sequence for _ in range(60))
    assert set(drawn) == {target.sequence[start : len(target.sequence) - 2 + start] for start in range(3)}
    cropped = crops.cropped(target)
    start = target.sequence.index(cropped.sequence)
    assert (cropped.positions == target.positions[start : start + len(cropped.sequence)]).all()


def test_a_short_chain_is_not_cropped():
    assert TrainingBatches(256, 0, False, 0).cropped(TARGETS[0]) is TARGETS[0]


def test_one_seed_draws_one_series_of_batches():
    def series(seed):
        batches = TrainingBatches(10, 3, True, seed)
        return [
            (batch["num_recycles"], batch["input_ids"].tolist()) for batch in (batches(TARGETS[:2]) for _ in range(8))
        ]

    assert series(0) == series(0) != series(1)


def test_recycles_are_all_drawn_or_all_taken():
    sampled, fixed = (TrainingBatches(10, 2, sampled, 0) for sampled in (True, False))
    assert {sampled(TARGETS[:1])["num_recycles"] for _ in range(40)} == {0, 1, 2}
    assert {fixed(TARGETS[:1])["num_recycles"] for _ in range(5)} == {2}


def test_rows_are_targets_and_have_the_column_that_samplers_read():
    rows = TargetRows(TARGETS, refused=[("bad.pdb", "bad.pdb: it has no chain.")])
    assert rows[3].name == TARGETS[3].name
    assert [len(ids) for ids in rows["input_ids"]] == [len(target.sequence) for target in TARGETS]
    assert rows.refused == (("bad.pdb", "bad.pdb: it has no chain."),)
