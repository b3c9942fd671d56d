"""A file of finished work survives a kill at any byte."""

import json

import pytest

from experiments.judge.journal import Journal


def test_rows_are_read_back(tmp_path):
    journal = Journal(tmp_path / "deep" / "j.jsonl")
    journal.append({"key": "a", "text": "né\n"})
    assert Journal(journal.file).rows == {"a": {"key": "a", "text": "né\n"}}


def test_a_half_written_line_is_cut_off_and_the_rest_stays(tmp_path):
    file = tmp_path / "j.jsonl"
    for key in "ab":
        Journal(file).append({"key": key})
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        journal = Journal(file)
        assert list(journal.rows) == ["a", "b"][: whole[:length].count(b"\n")]
        journal.append({"key": "c"})
        assert [json.loads(line)["key"] for line in file.read_text().splitlines()][-1] == "c"
        assert list(Journal(file).rows)[-1] == "c"


@pytest.mark.parametrize("line", ["no JSON", "[]", '{"text": 1}'])
def test_a_foreign_line_is_named(tmp_path, line):
    file = tmp_path / "j.jsonl"
    file.write_text(f'{{"key": "a"}}\n{line}\n')
    with pytest.raises(ValueError, match=r"j\.jsonl, line 2"):
        Journal(file)
