"""Files that are not what they seem: a sentence with file, line and remedy, in the plan, for every kind of data."""

import gzip
import json
from pathlib import Path

import pytest

from experiments.files import half_character, read_lines
from experiments.folding.index import plan_targets
from experiments.rows import identities
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from tests.experiments.folding.structure_files import write_pdb

ROW = {"sentence1": "the old dog", "sentence2": "a small ball", "label": 0}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HALF = "small \ud83d ball"
TASKS = {  # folder, a row, and its text columns
    "glue/rte": ("glue/rte", ROW, ("sentence1", "sentence2")),
    "instruct": ("instruct/alpaca", {"instruction": "Say it.", "output": "it"}, ("instruction", "output", "input")),
    "dpo": (
        "preference/alpaca_eval",
        {"prompt": "Say it.", "chosen": "it", "rejected": "that"},
        ("prompt", "chosen", "rejected", "system"),
    ),
    "gsm8k": ("math/gsm8k", {"question": "1 and 1?", "answer": "two #### 2"}, ("question",)),
    "superglue_qa/record": (
        "superglue_qa/record",
        {"passage": "the old dog", "query": "it is @placeholder", "entities": ["dog"], "answers": ["dog"]},
        ("passage", "query"),
    ),
}


def problems(root: Path, name: str, lines: list[str | bytes]) -> str:
    """What the plan says of a training file of these lines, beside a validation file of one good row."""
    folder, row, _ = TASKS[name]
    where = root / folder
    where.mkdir(parents=True, exist_ok=True)
    (where / "validation.jsonl").write_text(json.dumps(row) + "\n")
    (where / "train.jsonl").write_bytes(b"".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    return "\n".join(make_plan([f"task={name}", f"data.root={root}"], False, CONF).problems)


def line(name: str, **changes) -> str:
    return json.dumps(TASKS[name][1] | changes) + "\n"


@pytest.mark.parametrize(
    ("name", "column"), [(name, column) for name, (*_, columns) in TASKS.items() for column in columns]
)
def test_half_a_surrogate_pair_is_named_by_file_line_and_column(name, column, tmp_path):
    found = problems(tmp_path, name, [line(name), line(name, **{column: HALF})])
    assert f"train.jsonl, line 2: column {column} holds \\ud83d, half of a surrogate pair" in found


def test_in_lists_of_answers_too(tmp_path):
    name = "superglue_qa/record"
    found = problems(tmp_path, name, [line(name, entities=["dog", HALF])])
    assert "line 1: column entities holds \\ud83d" in found


def test_a_whole_pair_is_a_character_like_others(tmp_path):
    assert half_character("\U0001f600") is None
    assert problems(tmp_path, "glue/rte", [line("glue/rte", sentence1="\U0001f600")]) == ""


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0, "one"), "line 2: idx is a text, in the rows before a whole number"),
        (("zero", 1), "line 2: idx is a whole number, in the rows before a text"),
        ((0, None), "line 2: idx is neither whole number nor text, in the rows before a whole number"),
        ((0, 1.5), "line 2: idx is neither whole number nor text"),
        ((2**63,), "line 1: idx must fit into 64 bits"),
        (("\ud83d",), "line 1: idx holds \\ud83d"),
    ],
)
def test_mixed_names_of_rows_are_refused(name, values, sentence, tmp_path):
    assert sentence in problems(tmp_path, name, [line(name, idx=value) for value in values])


def test_rows_are_named_by_idx_or_by_position():
    assert identities([{"idx": 7}, {"idx": 3}]) == [7, 3]
    assert identities([{"idx": "b"}, {"idx": "a"}]) == ["b", "a"]
    assert identities([{}, {"idx": {"passage": 0}}, {"idx": True}]) == [0, 1, 2]
    assert identities([]) == []
    with pytest.raises(ValueError, match="row 1: idx is a text"):
        identities([{"idx": 0}, {"idx": "0"}])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([LFS], "it is a git-lfs pointer, not the data: run `git lfs pull`"),
        (["\ufeff{}\n".encode("utf-16")], "it is UTF-16: save it as UTF-8"),
        ([gzip.compress(b"{}\n")], "it is compressed: name it train.jsonl.gz"),
        (["[" * 100_000 + "\n"], "line 1: lists or objects are nested too deeply"),
        (['{"idx": ' + "1" * 5000 + "}\n"], "line 1: cannot be read (Exceeds the limit"),
    ],
    ids=["lfs", "utf-16", "gzip", "deep", "digits"],
)
def test_a_file_that_is_something_else_says_what(name, lines, sentence, tmp_path):
    assert f"train.jsonl{', ' if sentence.startswith('line') else ': '}{sentence}" in problems(tmp_path, name, lines)


def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path):
    text = line("glue/rte")
    assert problems(tmp_path, "glue/rte", ["\ufeff" + text, text, "\ufeff" + text, "\ufeff\n"]) == ""
    assert [row for _, row in read_lines(tmp_path / "glue" / "rte" / "train.jsonl")] == [ROW] * 3


def test_a_damaged_archive_is_a_sentence(tmp_path):
    whole = gzip.compress(b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(2000)))
    for name, data in {
        "cut": whole[:-20],
        "torn": whole[:60] + bytes(40) + whole[100:],
        "pointer": LFS.encode(),
    }.items():
        file = tmp_path / f"{name}.jsonl.gz"
        file.write_bytes(data)
        with pytest.raises(
            ValueError, match=rf"{name}\.jsonl\.gz(, after line \d+)?: (cannot be read|it is a git-lfs)"
        ):
            list(read_lines(file))


def folds(root: Path, index: str, *names: str) -> Path:
    """A folder of four folds below `protein`, and the index of these lines."""
    folder = root / "protein"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        write_pdb(folder / f"{name}.pdb")
    (folder / "index.tsv").write_text(index, encoding="utf-8")
    return folder


@pytest.mark.parametrize("side", ["train", "validation"])
def test_an_index_whose_split_has_one_side_is_refused_in_the_plan(side, tmp_path):
    other = "validation" if side == "train" else "train"
    folds(tmp_path, "file\tchain\tsplit\n" + "".join(f"{name}.pdb\tA\t{side}\n" for name in "abcd"))
    (found,) = make_plan(["task=folding", f"data.root={tmp_path}"], False, CONF).problems
    assert f"index.tsv: none of its 4 targets has {other} in the column split: give some to each side" in found


def test_the_files_of_a_side_that_are_missing_are_named_with_it(tmp_path):
    folds(tmp_path, "file\tchain\tsplit\na.pdb\tA\ttrain\nb.pdb\tA\ttrain\ngone.pdb\tA\tvalidation\n")
    found = "\n".join(make_plan(["task=folding", f"data.root={tmp_path}"], False, CONF).problems)
    assert "none of its 2 targets has validation" in found
    assert "gone.pdb: there is no such file." in found


def test_one_target_cannot_be_split(tmp_path):
    folds(tmp_path, "file\tchain\na.pdb\tA\n")
    (found,) = make_plan(["task=folding", f"data.root={tmp_path}"], False, CONF).problems
    assert "one target cannot be split into training and validation: add structures." in found


def test_an_index_may_begin_with_a_byte_order_mark(tmp_path):
    folds(tmp_path, "\ufefffile\tchain\tsplit\na.pdb\tA\ttrain\nb.pdb\tA\tvalidation\n")
    assert [target.name for target in plan_targets(str(tmp_path)).targets] == ["a_A", "b_A"]


@pytest.mark.parametrize("name", ["index.tsv", "b.pdb"])
def test_a_pointer_in_the_place_of_an_index_or_a_structure_is_named(name, tmp_path):
    folder = folds(tmp_path, "file\tchain\na.pdb\tA\nb.pdb\tA\nc.pdb\tA\n")
    (folder / name).write_text(LFS)
    sentence = f"{name}: it is a git-lfs pointer, not the data: run `git lfs pull`"
    if name == "index.tsv":
        with pytest.raises(ValueError, match=sentence):
            plan_targets(str(tmp_path))
    else:
        ((_, refused),) = plan_targets(str(tmp_path)).refused
        assert sentence in refused
