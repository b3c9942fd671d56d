"""The toy folds: literature geometry, a rule that reads the sequence, and a second family that reads it otherwise."""

import os
import subprocess
import sys

import biotite.structure as struc
import numpy as np
import pytest
from transformers.models.esm.openfold_utils import residue_constants as alphafold

from lorta.embedded import folds
from lorta.embedded.amino_acids import ATOM_ORDER, ATOM_TYPES, ATOMS, ONE_LETTER, chi_axes
from lorta.embedded.chain_geometry import build_chain

EVERY_LETTER = "ARNDCQEGHILKMFPSTWYV"
ALPHAFOLD = {letter: name for name, letter in ONE_LETTER.items()}


def atoms(positions: np.ndarray, *names: str) -> list[np.ndarray]:
    return [positions[..., ATOM_ORDER[name], :] for name in names]


def angles_apart(one: float, two: float) -> float:
    return abs((one - two + np.pi) % (2 * np.pi) - np.pi)


def test_atoms_are_in_the_order_of_alphafold():
    assert list(ATOM_TYPES) == alphafold.atom_types


def test_letters_are_those_of_alphafold():
    assert alphafold.restype_3to1 == ONE_LETTER


@pytest.mark.parametrize("letter", EVERY_LETTER)
def test_every_atom_has_the_place_that_alphafold_gives_it(letter):
    theirs = {name: (group, place) for name, group, place in alphafold.rigid_group_atom_positions[ALPHAFOLD[letter]]}
    assert {atom.name: (atom.group, atom.place) for atom in ATOMS[letter]} == theirs


@pytest.mark.parametrize("letter", EVERY_LETTER)
def test_side_chains_turn_about_the_axes_of_alphafold(letter):
    theirs = [tuple(four[:3]) for four in alphafold.chi_angles_atoms[ALPHAFOLD[letter]]]
    assert chi_axes(letter) == theirs


def test_a_built_chain_has_the_torsions_that_it_was_given():
    generator = np.random.default_rng(0)
    phi, psi = generator.uniform(-3, 3, size=(2, 20))
    positions, _ = build_chain(EVERY_LETTER, phi.tolist(), psi.tolist(), [[1.0, -2.0, 0.5, 2.5]] * 20)
    n, ca, c = atoms(positions, "N", "CA", "C")
    for place in range(1, 20):
        assert angles_apart(struc.dihedral(c[place - 1], n[place], ca[place], c[place]), phi[place]) < 1e-6
        assert angles_apart(struc.dihedral(n[place - 1], ca[place - 1], c[place - 1], n[place]), psi[place - 1]) < 1e-6
        assert angles_apart(struc.dihedral(ca[place - 1], c[place - 1], n[place], ca[place]), np.pi) < 1e-6


def test_side_chains_have_the_chi_angles_that_they_were_given():
    given = [1.0, -2.0, 0.5, 2.5]
    positions, _ = build_chain(EVERY_LETTER, [-1.0] * 20, [2.0] * 20, [given] * 20)
    for place, letter in enumerate(EVERY_LETTER):
        for chi, names in zip(given, alphafold.chi_angles_atoms[ALPHAFOLD[letter]], strict=False):
            # places have three decimals and some defining atoms sit 0.004 angstrom off their plane
            assert angles_apart(struc.dihedral(*atoms(positions[place], *names)), chi) < 0.01


def test_the_oxygen_is_opposite_the_next_nitrogen():
    positions, _ = build_chain("AA", [-1.0, -1.0], [2.0, 2.0], [[]] * 2)
    n, ca, c, o = atoms(positions[0], "N", "CA", "C", "O")
    assert angles_apart(struc.dihedral(n, ca, c, o), 2.0 + np.pi) < 1e-6


def test_residues_are_l_amino_acids_as_in_nature():
    positions, _ = build_chain("A", [0.0], [0.0], [[]])
    n, ca, c, cb = atoms(positions[0], "N", "CA", "C", "CB")
    assert np.dot(np.cross(n - ca, c - ca), cb - ca) > 0


def test_built_chains_have_the_atoms_of_their_residues():
    _, mask = build_chain(EVERY_LETTER, [0.0] * 20, [0.0] * 20, [[0.0] * 4] * 20)
    order = [alphafold.restype_order[letter] for letter in EVERY_LETTER]
    assert (mask == alphafold.restype_atom37_mask[order].astype(bool)).all()


@pytest.mark.parametrize("split", folds.SIZES)
def test_folds_have_the_committed_fingerprint(split):
    assert folds.folds_fingerprint(folds.fold_rows(split)) == folds.FINGERPRINTS[split]


def test_folds_do_not_depend_on_the_hash_seed_nor_on_torch():
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, biotite=None); "
        "from lorta.embedded import folds; print(folds.folds_fingerprint(folds.fold_rows('validation')))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == folds.FINGERPRINTS["validation"]


def test_no_sequence_occurs_twice_within_or_across_splits():
    sequences = [sequence for split in folds.SIZES for _, sequence, _, _ in folds.fold_rows(split)]
    assert len(set(sequences)) == len(sequences)


@pytest.mark.parametrize("split", folds.SIZES)
def test_rows_have_the_types_and_shapes_of_targets(split):
    for name, sequence, positions, mask in folds.fold_rows(split):
        assert name.startswith(split)
        assert folds.LENGTHS[0] <= len(sequence) <= folds.LENGTHS[1]
        assert (positions.dtype, positions.shape) == (np.float32, (len(sequence), 37, 3))
        assert (mask.dtype, mask.shape) == (bool, (len(sequence), 37))
        assert (positions[~mask] == 0).all()


def test_the_families_read_the_same_sequence_differently():
    rows = folds.fold_rows("validation")
    shifted, first = ("".join(folds.states(row[1], family) for row in rows) for family in (True, False))
    assert 0.4 < np.mean([one == two for one, two in zip(shifted, first, strict=True)]) < 0.6


def test_helices_strands_and_turns_are_all_there():
    states = "".join(folds.states(sequence, True) for _, sequence, _, _ in folds.fold_rows("validation"))
    assert min(states.count(state) for state in "HET") > len(states) / 4


def test_biotite_sees_helices_where_the_rule_puts_them():
    positions, mask = folds.fold("EMALKQEMALKQ", shifted=False)
    assert list(secondary_structure(positions, mask)[2:-2]) == ["a"] * 8


def secondary_structure(positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    chain = struc.AtomArray(int(mask.sum()))
    residues, kinds = np.nonzero(mask)
    chain.coord, chain.res_id = positions[mask], residues + 1
    chain.atom_name = np.array(ATOM_TYPES)[kinds]
    chain.res_name = np.full(len(residues), "ALA")
    return struc.annotate_sse(chain)


def test_callers_may_change_their_arrays_without_changing_ours():
    folds.fold_rows("train")[0][2][:] = 7
    assert folds.folds_fingerprint(folds.fold_rows("train")) == folds.FINGERPRINTS["train"]


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no split 'test'; choose one of pretraining, train, validation"):
        folds.fold_rows("test")
