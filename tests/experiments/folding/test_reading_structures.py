"""Sound structure files: what becomes of models, alternate locations, gaps, insertions, and modified residues."""

import gzip

import numpy as np
import pytest
from structure_files import MASK, POSITIONS, SEQUENCE, residue, write_cif, write_pdb

from experiments.folding.index import plan_targets
from lorta.embedded.amino_acids import ATOM_ORDER


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "protein").mkdir()
    return tmp_path / "protein"


def only(folder):
    planned = plan_targets(str(folder.parent))
    assert planned.refused == ()
    (target,) = planned.targets
    return target, " ".join(sentence for _, sentence in planned.remarks)


def test_a_written_chain_is_read_back_to_the_thousandth(folder):
    write_pdb(folder / "one.pdb")
    target, remarks = only(folder)
    assert (target.name, target.sequence, remarks) == ("one_A", SEQUENCE, "")
    assert (target.mask == MASK).all()
    assert np.abs(target.positions - POSITIONS).max() < 0.0006


@pytest.mark.parametrize("ending", [".cif", ".mmcif", ".ent", ".pdb.gz", ".cif.gz"])
def test_every_format_gives_the_same_target(folder, tmp_path, ending):
    source = write_pdb(tmp_path / "source.pdb")
    plain = write_cif(tmp_path / "source.cif", source) if "cif" in ending else source
    data = plain.read_bytes()
    (folder / f"one{ending}").write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    target, _ = only(folder)
    assert (target.name, target.sequence) == ("one_A", SEQUENCE)
    assert np.abs(target.positions - POSITIONS).max() < 0.0006


def test_the_first_of_several_models_is_used_and_said(folder):
    def two_models(lines):
        atoms = [line for line in lines if line.startswith("ATOM")]
        moved = [f"{line[:30]}{float(line[30:38]) + 5:8.3f}{line[38:]}" for line in atoms]
        return ["MODEL        1", *atoms, "ENDMDL", "MODEL        2", *moved, "ENDMDL", "END"]

    write_pdb(folder / "two.pdb", two_models)
    target, remarks = only(folder)
    assert np.abs(target.positions - POSITIONS).max() < 0.0006
    assert remarks == "two.pdb: There are 2 models; the first is used."


def test_the_more_occupied_location_is_used(folder):
    def two_places(lines):
        for line in lines:
            if residue(line) != 5:
                yield line
                continue
            yield f"{line[:16]}A{line[17:54]}  0.30{line[60:]}"
            yield f"{line[:16]}B{line[17:30]}{float(line[30:38]) + 1:8.3f}{line[38:54]}  0.70{line[60:]}"

    write_pdb(folder / "one.pdb", two_places)
    target, remarks = only(folder)
    shift = target.positions - POSITIONS
    assert np.allclose(shift[4][MASK[4]], [1, 0, 0], atol=0.002)
    assert np.abs(np.delete(shift, 4, axis=0)).max() < 0.0006
    assert "Alternate locations in 1 residues" in remarks


def two_kinds(mark):
    """Residue 5 as serine and, more often, alanine, atom by atom."""

    def change(lines):
        for line in lines:
            if residue(line) != 5:
                yield line
            elif line[12:16] in (" N  ", " CA ", " C  ", " O  ", " CB "):
                yield f"{line[:16]}{mark[0]}SER{line[20:54]}  0.40{line[60:]}"
                yield f"{line[:16]}{mark[1]}ALA{line[20:54]}  0.60{line[60:]}"

    return change


@pytest.mark.parametrize("mark", ["AB", "12", "  "])
def test_of_two_kinds_of_one_residue_the_more_occupied_is_used(folder, mark):
    write_pdb(folder / "one.pdb", two_kinds(mark))
    target, remarks = only(folder)
    assert target.sequence == f"{SEQUENCE[:4]}A{SEQUENCE[5:]}"
    assert target.mask[4].sum() == 5
    assert "Alternate locations in 1 residues" in remarks


def test_equally_occupied_locations_give_the_first(folder):
    def halves(lines):
        for line in lines:
            yield f"{line[:16]}B{line[17:54]}  0.50{line[60:]}" if residue(line) == 5 else line
            if residue(line) == 5:
                yield f"{line[:16]}A{line[17:30]}  99.000{line[38:54]}  0.50{line[60:]}"

    write_pdb(folder / "one.pdb", halves)
    assert np.abs(only(folder)[0].positions - POSITIONS).max() < 0.0006


def test_occupancies_and_b_factors_may_be_left_out(folder):
    write_pdb(folder / "one.pdb", lambda lines: [line[:54] for line in lines])
    target, _ = only(folder)
    assert (target.sequence, target.mask.sum()) == (SEQUENCE, MASK.sum())


def test_selenomethionine_is_methionine_with_its_sulphur_in_place(folder):
    def selenium(lines):
        for line in lines:
            name = line[12:16].replace(" SD ", "SE  ")
            yield f"HETATM{line[6:12]}{name}{line[16]}MSE{line[20:]}" if line[17:20] == "MET" else line

    write_pdb(folder / "one.pdb", selenium)
    target, remarks = only(folder)
    assert target.sequence == SEQUENCE
    assert (target.mask == MASK).all()
    assert "MSE 2 as M" in remarks


def test_a_modified_residue_is_read_as_its_parent_without_the_added_atoms(folder):
    def phosphorylated(lines):
        for line in lines:
            yield line.replace("THR", "TPO") if line.startswith("ATOM") else line
            if line.startswith("ATOM") and line[17:20] == "THR" and line[12:16] == " CB ":
                yield f"{line[:12]} P   TPO{line[20:76]} P  "

    write_pdb(folder / "one.pdb", phosphorylated)
    target, remarks = only(folder)
    assert target.sequence == SEQUENCE
    assert (target.mask == MASK).all()
    assert "TPO 20 as T" in remarks


def test_water_ligands_and_free_amino_acids_are_left_out(folder):
    def with_others(lines):
        far = "HETATM 9001  {name}  {kind} A 401      90.000  90.000  90.000  1.00  0.00           {element}  "
        others = [far.format(name=name, kind=kind, element=element) for name, kind, element in OTHERS]
        return [*lines[:-1], *others, "END"]

    OTHERS = [("O ", "HOH", "O"), ("CA", "GLU", "C"), ("ZN", " ZN", "Z")]
    write_pdb(folder / "one.pdb", with_others)
    target, _ = only(folder)
    assert target.sequence == SEQUENCE


def test_insertion_codes_keep_their_residues(folder):
    def inserted(lines):
        """Number residues 5, 6, 7 as 5, 5A, 5B."""
        for line in lines:
            shifted = {6: "5A", 7: "5B"}.get(residue(line))
            yield f"{line[:22]}   {shifted}{line[27:]}" if shifted else line

    write_pdb(folder / "one.pdb", inserted)
    target, remarks = only(folder)
    assert (target.sequence, remarks) == (SEQUENCE, "")


def without(*numbers):
    return lambda lines: [line for line in lines if residue(line) not in numbers]


def test_a_gap_is_as_long_as_the_residue_numbers_say(folder):
    write_pdb(folder / "one.pdb", without(10, 11, 12))
    target, remarks = only(folder)
    assert target.sequence == f"{SEQUENCE[:9]}XXX{SEQUENCE[12:]}"
    assert not target.mask[9:12].any()
    assert (target.mask[12:] == MASK[12:]).all()
    assert "3 residues inside the chain have no coordinates" in remarks


def seqres(letters):
    from lorta.embedded.amino_acids import THREE_LETTERS

    names = [THREE_LETTERS[letter] for letter in letters]
    return [
        f"SEQRES {number:3d} A {len(names):4d}  {' '.join(names[start : start + 13])}"
        for number, start in enumerate(range(0, len(names), 13), 1)
    ]


def test_a_gap_has_the_letters_that_the_file_declares(folder):
    write_pdb(folder / "one.pdb", lambda lines: [*seqres(f"GG{SEQUENCE}GG"), *without(10, 11, 12)(lines)])
    assert only(folder)[0].sequence == SEQUENCE


def test_a_gap_that_is_not_numbered_is_found_in_the_declared_sequence(folder):
    def renumbered(lines):
        for line in without(10, 11, 12)(lines):
            yield f"{line[:22]}{residue(line) - 3:4d}{line[26:]}" if residue(line) > 12 else line

    write_pdb(folder / "one.pdb", lambda lines: [*seqres(SEQUENCE), *renumbered(lines)])
    assert only(folder)[0].sequence == SEQUENCE


def test_a_declared_sequence_that_does_not_fit_is_said(folder):
    write_pdb(folder / "one.pdb", lambda lines: [*seqres("W" * len(SEQUENCE)), *lines])
    target, remarks = only(folder)
    assert target.sequence == SEQUENCE
    assert "does not contain the observed residues" in remarks


def test_missing_atoms_are_masked(folder):
    write_pdb(folder / "one.pdb", lambda lines: [line for line in lines if residue(line) != 7 or line[12:16] == " CA "])
    target, _ = only(folder)
    assert target.sequence == SEQUENCE
    assert target.mask[6].nonzero()[0].tolist() == [ATOM_ORDER["CA"]]


def test_an_unknown_residue_is_x_with_its_backbone(folder):
    def unknown(lines):
        return [f"{line[:17]}UNK{line[20:]}" if residue(line) == 4 else line for line in lines]

    write_pdb(folder / "one.pdb", unknown)
    target, _ = only(folder)
    assert target.sequence == f"{SEQUENCE[:3]}X{SEQUENCE[4:]}"
    assert target.mask[3].sum() == 5


def test_without_an_index_every_chain_is_a_target(folder):
    def two_chains(lines):
        return [*lines[:-1], *(f"{line[:21]}B{line[22:]}" for line in lines[:-1]), "END"]

    write_pdb(folder / "one.pdb", two_chains)
    assert [target.name for target in plan_targets(str(folder.parent)).targets] == ["one_A", "one_B"]


def test_a_file_without_an_end_mark_is_said_to_be_perhaps_cut(folder):
    write_pdb(folder / "one.pdb", lambda lines: lines[:-2])
    assert "no end mark" in only(folder)[1]
