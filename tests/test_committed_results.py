"""Committed reports are what their records give, and the README shows one of them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from lorta.analysis.item_scores import items_file, read_items
from lorta.analysis.published import load
from lorta.analysis.verdicts import Evidence
from lorta.cli.main import COMMANDS, main
from lorta.records.store import read_export
from lorta.records.suites import require_unchanged
from lorta.reporting.paper_tables import judge_table, write_paper
from lorta.reporting.report import write_report
from scripts.make_readme import FINDINGS, HEADLINE, findings, text

ROOT = Path(__file__).parents[1]
SUITES = sorted((ROOT / "results" / "records").glob("*.jsonl*"))


def items_of(file: Path) -> Path:
    return items_file(ROOT / "results", file.name.split(".")[0])


def test_there_are_committed_records():
    assert HEADLINE in {file.name.split(".")[0] for file in SUITES}


def test_the_files_that_recipes_and_help_name_are_there():
    """A suite that grows is compressed, and has another name then."""
    texts = [path.read_text() for path in (ROOT / "conf" / "experiment").rglob("*.yaml")]
    examples = [example for command in COMMANDS.values() for example in command.examples]
    named = {name for text in (*texts, *examples) for name in re.findall(r"results/records/[\w.*]+", text)}
    assert len(named) > 5
    assert [name for name in sorted(named) if not list(ROOT.glob(name))] == []


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_report_regenerated_from_its_records_is_the_committed_one(file, tmp_path):
    suite, records = file.name.split(".")[0], read_export(file)
    items = read_items(items_of(file), records)
    write_report(records, suite, tmp_path, figure=False, items=items)
    for ending in ("md", "csv", "runs.csv", "comparisons.csv", "tex"):
        name = f"reports/{suite}.{ending}"
        assert (tmp_path / name).read_bytes() == (ROOT / "results" / name).read_bytes()


def test_the_papers_tables_regenerated_from_the_committed_records_are_the_committed_ones(tmp_path):
    records = [record for file in SUITES for record in read_export(file)]
    items = {run: found for file in SUITES for run, found in read_items(items_of(file), records).items()}
    paper = load("lorta")
    write_paper(
        [judge_table(paper, name, Evidence.of(records, items)) for name in paper.tables], tmp_path, "paper_lorta"
    )
    for ending in ("md", "csv", "tex", "html"):
        name = f"reports/paper_lorta.{ending}"
        assert (tmp_path / name).read_bytes() == (ROOT / "results" / name).read_bytes()


@pytest.mark.parametrize("file", sorted((ROOT / "results/answers").rglob("*.jsonl")), ids=lambda file: file.stem)
def test_committed_answers_are_of_a_run_of_their_suite_to_all_questions_of_mt_bench(file):
    (suite,) = (of for of in SUITES if of.name.split(".")[0] == file.parent.name)
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [answer["question_id"] for answer in answers] == list(range(81, 161))
    assert all(turn.strip() for answer in answers for turn in answer["choices"][0]["turns"])
    assert {len(answer["choices"][0]["turns"]) for answer in answers} == {2}
    (model,) = {answer["model_id"] for answer in answers}
    assert model.removesuffix("-base") in {record.run_id for record in read_export(suite)}
    assert model.endswith("-base") == (file.stem == "untouched")


NO_BETTER_THAN_A_HEAD = {
    "deep_lora": "its released rate hardly moves the factors in 96 steps; 1.5e-2 does, and loses the method"
}


def test_every_adapter_learns_more_than_a_head_alone_on_two_embedded_tasks():
    records = read_export(next(file for file in SUITES if file.name.startswith("baselines_tiny.")))
    assert {record.status for record in records} == {"success"}
    score = {(record.adapter.name, record.task.name): record.primary_score.value for record in records}
    adapters = {file.stem for file in (ROOT / "conf/adapter").glob("*.yaml")}
    assert set(score) == {(adapter, task) for adapter in adapters for task in ("glue/mrpc", "glue/rte")}
    others = adapters - {"head_only"}
    alone = {
        name for name in others for task in ("glue/mrpc", "glue/rte") if score[name, task] <= score["head_only", task]
    }
    assert alone == set(NO_BETTER_THAN_A_HEAD)


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_committed_suite_is_as_it_was_collected(file):
    require_unchanged(file)  # of a suite that was merged by hand: lorta.records.suites.seal
    if items_of(file).is_file():
        require_unchanged(items_of(file))


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_committed_runs_come_from_a_clean_commit_and_name_no_place(file):
    for record in read_export(file):
        assert record.code is not None and record.code.git_dirty is False, record.run_id
        assert not [word for word in record.overrides if word.startswith(("data.root", "runtime.", "model.path"))]


def test_the_commits_of_committed_runs_are_in_the_history():
    """Studies that ran on a branch that was rebased afterwards named commits which nobody had."""

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)

    if git("rev-parse", "--is-shallow-repository").stdout.strip() != "false":
        pytest.skip("this checkout has no whole history: git fetch --unshallow")
    commits = {record.code.git_sha for file in SUITES for record in read_export(file) if record.code is not None}
    assert [
        sha for sha in sorted(map(str, commits)) if git("merge-base", "--is-ancestor", sha, "HEAD").returncode
    ] == []


@pytest.mark.parametrize("name", (HEADLINE, *FINDINGS))
def test_a_page_is_what_its_records_give(name, tmp_path):
    (records,) = [file for file in SUITES if file.name.split(".")[0] == name]
    assert main(["report", "--records", str(records), "--to", str(tmp_path / "page.html")]) in (0, None)
    assert (tmp_path / "page.html").read_bytes() == (ROOT / "results" / "pages" / f"{name}.html").read_bytes()


def test_the_readme_shows_the_headline():
    assert f"<!-- headline -->\n{text()}<!-- end of headline -->" in (ROOT / "README.md").read_text()


def test_the_readme_says_what_the_decoder_studies_found():
    assert f"<!-- findings -->\n{findings()}<!-- end of findings -->" in (ROOT / "README.md").read_text()


def test_the_readme_names_every_adapter():
    rows = re.findall(r"^\| [^|]+ \| `([^|`]+)` \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    words = [word.partition("{") for row in rows[:5] for word in row.split()]
    named = [stem + end for stem, _, ends in words for end in ends.rstrip("}").split(",")]
    assert sorted(named) == sorted(file.stem for file in (ROOT / "conf" / "adapter").glob("*.yaml"))
