"""Broken structure files: one sentence that names the file, and the others go on."""

import hashlib
import sys

import pytest
from structure_files import SEQUENCE, residue, write_cif, write_pdb

from experiments.folding.index import plan_targets


@pytest.fixture
def folder(tmp_path):
    """A folder that already has one sound structure."""
    (tmp_path / "protein").mkdir()
    write_pdb(tmp_path / "protein" / "sound.pdb")
    return tmp_path / "protein"


def keep(atom):
    return lambda lines: [line for line in lines if not line.startswith("ATOM") or atom(line)]


def nan(lines):
    return [f"{line[:30]}     nan{line[38:]}" if residue(line) == 3 else line for line in lines]


def placeholder(lines):
    return [f"{line[:30]}9999.000{line[38:]}" if residue(line) == 3 else line for line in lines]


def stars(lines):
    return [f"{line[:30]}********{line[38:]}" if residue(line) == 3 else line for line in lines]


def nanometres(lines):
    return [
        f"{line[:30]}{''.join(f'{float(line[at : at + 8]) / 10:8.3f}' for at in (30, 38, 46))}{line[54:]}"
        if residue(line)
        else line
        for line in lines
    ]


def cut_inside_a_line(lines):
    return [*lines[:99], lines[99][:50]]


def cut_between_residues(lines):
    declared = f"SEQRES   1 A   33  {' '.join(['GLU', 'MET', 'ALA', 'LEU', 'LYS', 'GLN'] * 2)} GLY"
    return [declared, *(line for line in lines if 0 < residue(line) < 9)]


BROKEN = {
    "empty": (lambda lines: [], "the file is empty"),
    "cut inside a line": (cut_inside_a_line, "the atom of line 100 is cut short"),
    "cut between residues": (cut_between_residues, "its last 5 residues are missing: it was cut short"),
    "no CA": (keep(lambda line: line[12:16] != " CA "), "0 of its 33 residues have a CA atom; 3 are needed"),
    "no atoms": (keep(lambda line: False), "there is no ATOM record"),
    "two CA": (keep(lambda line: residue(line) < 3), "2 of its 2 residues have a CA atom; 3 are needed"),
    "NaN": (nan, "5 atoms have coordinates that are no numbers"),
    "placeholder": (placeholder, r"its atoms are spread over \d+ angstrom, more than 3000"),
    "overflow": (stars, "cannot be read as PDB .*could not convert string to float"),
    "nanometres": (nanometres, "0 of its 32 steps from CA to CA are as long as a residue: this is no chain"),
    "no protein": (lambda lines: [line.replace("ATOM  ", "HETATM")[:17] + "HOH" + line[20:] for line in lines],
                   "it has no amino acids"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_name_and_the_others_are_read(folder, case):
    change, sentence = BROKEN[case]
    write_pdb(folder / "broken.pdb", change)
    planned = plan_targets(str(folder.parent))
    assert [target.name for target in planned.targets] == ["sound_A"]
    ((file, said),) = planned.refused
    assert file == "broken.pdb"
    with pytest.raises(ValueError, match=rf"^broken\.pdb.*: .*({sentence})"):
        raise ValueError(said)
    assert "\n" not in said


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6, 0.9])
def test_an_mmcif_file_cut_inside_a_row_is_refused_by_name(folder, tmp_path, share):
    text = write_cif(tmp_path / "whole.cif", folder / "sound.pdb").read_text()
    end = text.index("\n", int(len(text) * share)) - 10
    (folder / "cut.cif").write_text(text[:end])
    (said,) = [sentence for _, sentence in plan_targets(str(folder.parent)).refused]
    assert said.startswith("cut.cif: it cannot be read as mmCIF")


def test_an_mmcif_file_cut_between_rows_is_said_to_be_perhaps_cut(folder, tmp_path):
    text = write_cif(tmp_path / "whole.cif", folder / "sound.pdb").read_text()
    (folder / "cut.cif").write_text(text[: text.index("\n", len(text) // 2) + 1])
    (said,) = plan_targets(str(folder.parent)).remarks
    assert said == ("cut_A", "cut.cif: The file has no end mark; it may have been cut short.")


@pytest.mark.parametrize(("name", "data"), [("binary.pdb", b"\x89\xfe\x00ATOM"), ("archive.pdb.gz", b"no archive")])
def test_what_is_no_text_or_no_archive_is_refused_by_name(folder, name, data):
    (folder / name).write_bytes(data)
    ((file, said),) = plan_targets(str(folder.parent)).refused
    assert file == name
    assert "is not text" in said or "cannot be read" in said


def test_a_chain_of_ten_thousand_residues_is_refused_by_its_length(folder):
    line = "ATOM  {atom:5d}  CA  ALA A{number:4d}    {x:8.3f}   0.000   0.000  1.00  0.00           C  "
    lines = [line.format(atom=n % 99999 + 1, number=n % 9999 + 1, x=3.8 * (n % 1000)) for n in range(10_000)]
    (folder / "long.pdb").write_text("\n".join([*lines, "END"]))
    ((_, said),) = plan_targets(str(folder.parent)).refused
    assert said == "long.pdb, chain A: it has 10000 residues, more than the 1024 that are allowed."


def test_a_gap_counts_towards_the_length(folder):
    def jump(lines):
        return [f"{line[:22]}{residue(line) + 1500:4d}{line[26:]}" if residue(line) > 20 else line for line in lines]

    write_pdb(folder / "broken.pdb", lambda lines: [line for line in jump(lines) if residue(line) not in (19, 20)])
    ((_, said),) = plan_targets(str(folder.parent)).refused
    assert "it has 1533 residues" in said


def test_when_nothing_is_left_all_sentences_are_the_error(tmp_path):
    (tmp_path / "protein").mkdir()
    write_pdb(tmp_path / "protein" / "one.pdb", nan)
    write_pdb(tmp_path / "protein" / "two.pdb", lambda lines: [])
    with pytest.raises(ValueError, match=r"^one\.pdb, chain A: .*no numbers\.\ntwo\.pdb: the file is empty\.$"):
        plan_targets(str(tmp_path))


def index(folder, *rows, header="file\tchain"):
    (folder / "index.tsv").write_text("\n".join([header, *rows]) + "\n")


def test_an_empty_chain_is_refused_with_the_chains_that_there_are(folder):
    index(folder, "sound.pdb\tA", "sound.pdb\tB")
    ((_, said),) = plan_targets(str(folder.parent)).refused
    assert said == "sound.pdb: there is no chain B; there are: A."


def test_a_row_of_the_index_without_its_file_is_refused(folder):
    index(folder, "sound.pdb\tA", "lost.pdb\tA")
    assert plan_targets(str(folder.parent)).refused == (("lost.pdb", "lost.pdb: there is no such file."),)


def test_a_file_that_is_not_the_indexed_one_is_refused(folder):
    digest = hashlib.sha256((folder / "sound.pdb").read_bytes()).hexdigest()
    write_pdb(folder / "other.pdb")
    index(folder, f"sound.pdb\tA\t{digest}", f"other.pdb\tA\t{'0' * 64}", header="file\tchain\tsha256")
    planned = plan_targets(str(folder.parent))
    assert [target.name for target in planned.targets] == ["sound_A"]
    assert planned.refused == (("other.pdb", "other.pdb: its sha256 is not that of index.tsv."),)


def test_a_name_that_comes_twice_is_refused(folder):
    index(folder, "sound.pdb\tA", "sound.pdb\tA")
    ((_, said),) = plan_targets(str(folder.parent)).refused
    assert said == "sound.pdb: a target of the name sound_A was there before."


def test_the_sequence_of_the_index_fills_gaps(folder):
    write_pdb(folder / "gap.pdb", lambda lines: [line for line in lines if residue(line) not in (10, 11)])
    index(folder, f"gap.pdb\tA\tGG{SEQUENCE}", header="file\tchain\tsequence")
    (target,) = plan_targets(str(folder.parent)).targets
    assert target.sequence == SEQUENCE


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file\tname\nsound.pdb\tA\n", "index.tsv: no column chain; they are separated by tabs"),
        ("file\tchain\n", "index.tsv: no rows"),
        ("file\tchain\n\tA\n", "index.tsv, line 2: no file"),
        ("file\tchain\tsplit\nsound.pdb\tA\ttest\n", "line 2: split must be train or validation, got 'test'"),
    ],
)
def test_a_faulty_index_is_refused(folder, text, sentence):
    (folder / "index.tsv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        plan_targets(str(folder.parent))


def test_a_missing_folder_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder .*protein; put structure files there"):
        plan_targets(str(tmp_path))


def test_a_folder_without_structures_is_refused(tmp_path):
    (tmp_path / "protein").mkdir()
    with pytest.raises(ValueError, match=r"no index\.tsv and no structure file"):
        plan_targets(str(tmp_path))


def test_without_biotite_the_remedy_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "biotite", None)
    with pytest.raises(ValueError, match=r"with biotite: pip install 'lorta\[folding\]'"):
        plan_targets(str(folder.parent))


def test_a_changed_file_is_read_again(folder):
    plan_targets(str(folder.parent))
    write_pdb(folder / "sound.pdb", lambda lines: [line for line in lines if residue(line) > 2])
    (target,) = plan_targets(str(folder.parent)).targets
    assert target.sequence == SEQUENCE[2:]
