"""Results of lm-evaluation-harness as records: rows, names, protocols, and what is refused."""

import json
from typing import Any

import pytest

from lorta.analysis.load import read_source
from lorta.analysis.significance import analyse
from lorta.analysis.summary import summarise
from lorta.cli.main import COMMANDS, main
from lorta.records.store import Store
from lorta.reporting.markup import DASH
from lorta.reporting.tables import to_markdown
from tests.imports.test_peft_results import result

DATE = "2026-01-02T03-04-05.678901"
ROWS = 40


def results(
    accuracy: float, model_args: str = "pretrained=org/base,peft=out/lora/adapter", task: str = "toy", /, **changes: Any
) -> dict[str, Any]:
    """Return a results file in the format of lm-evaluation-harness, of one task."""
    values: dict[str, Any] = {
        "results": {task: {"alias": task, "acc,none": accuracy, "acc_stderr,none": 0.05, "acc_norm,none": 0.5}},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "dataset_path": "org/toy",
                "test_split": "test",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            }
        },
        "versions": {task: 1.0},
        "n-shot": {task: 0},
        "higher_is_better": {task: {"acc": True, "acc_norm": True}},
        "n-samples": {task: {"original": ROWS, "effective": ROWS}},
        "config": {
            "model": "hf",
            "model_args": model_args,
            "model_dtype": "torch.bfloat16",
            "random_seed": 0,
            "limit": None,
        },
        "date": 1767322800.0,
        "pretty_env_info": "PyTorch version: 2.13.0+cpu\nIs debug build: False",
        "transformers_version": "5.23.0",
        "lm_eval_version": "0.4.13",
        "max_length": 2048,
        "model_name": "out/lora/adapter",
        "total_evaluation_time_seconds": "12.5",
    }
    return {**values, **changes}


def samples(right, rows=ROWS, prompt="p"):
    """Return the rows of `--log_samples`, the first `right` of them right."""
    return [
        {
            "doc_id": place,
            "filter": "none",
            "acc": float(place < right),
            "doc_hash": f"d{place}",
            "prompt_hash": f"{prompt}{place}",
        }
        for place in reversed(range(rows))
    ]


class Evaluations:
    def __init__(self, folder, capsys):
        self.folder, self.capsys, self.runs = folder / "out", capsys, folder / "runs"

    def write(self, name, values, rows=None, task="toy"):
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        text = values if isinstance(values, str) else json.dumps(values, indent=2)
        (place / f"results_{DATE}.json").write_text(text)
        if rows is not None:
            lines = rows if isinstance(rows, str) else "".join(f"{json.dumps(row)}\n" for row in rows)
            (place / f"samples_{task}_{DATE}.jsonl").write_text(lines)

    def take(self, *options):
        status = main(["import", "lm_eval", str(self.folder), "--runs", str(self.runs), *options])
        said = self.capsys.readouterr()
        return status, said.out + said.err

    def records(self) -> list[Any]:
        return Store(self.runs).records()


@pytest.fixture
def evaluations(tmp_path, capsys):
    return Evaluations(tmp_path, capsys)


def test_a_record_says_what_the_files_say(evaluations):
    evaluations.write("lora", results(0.75), samples(30))
    assert evaluations.take()[0] == 0
    (record,) = evaluations.records()
    assert (record.model.name, record.model.id, record.model.dtype) == ("base", "org/base", "bfloat16")
    assert (record.adapter.name, record.imported.name) == ("lora", "out/lora/adapter")
    assert (record.task.name, record.task.metric_primary, record.task.split_primary) == ("toy", "acc", "test")
    assert (record.primary_score.value, record.primary_score.n, record.time.eval_s) == (0.75, ROWS, 12.5)
    assert record.params is None and record.reasons["params"] and record.time.train_s is None
    assert sorted(record.imported.files) == [f"results_{DATE}.json", f"samples_toy_{DATE}.jsonl"]
    assert record.imported.protocol["max_length"] == "2048" and record.imported.protocol["torch"] == "2.13.0+cpu"
    rows = Store(evaluations.runs).read_rows(record.run_id, record.predictions_file)
    assert [row["score"] for row in rows] == [1.0] * 30 + [0.0] * 10


def test_adapters_of_one_backbone_are_compared_row_by_row(evaluations):
    evaluations.write("lora", results(0.75), samples(30))
    evaluations.write("vera", results(0.7, "pretrained=org/base,peft=out/vera/adapter"), samples(28))
    evaluations.write("base", results(0.25, "pretrained=org/base", model_name="org/base"), samples(10))
    evaluations.take()
    source = read_source(evaluations.runs, None)
    (table,) = summarise(source.records)
    analysis = analyse(table, source.items)
    assert {row.adapter for row in table.rows} == {"lora", "vera", "no adapter"}
    assert {table.rows[row].adapter for row, _ in analysis.ties} == {"lora", "vera"}
    exact = {table.rows[pair.row].adapter: pair.mcnemar for pair in analysis.comparisons}
    assert exact["vera"] == (pytest.approx(0.5),)  # two rows that one alone got right: 2 * 0.5 ** 2
    text = to_markdown([table], source.records, [analysis])
    assert "imported from lm\\_eval" in text and "not run here" in text and f"| {DASH} |" in text


@pytest.mark.parametrize(
    ("changes", "rows", "named"),
    [
        ({"n-shot": {"toy": 5}}, samples(30, prompt="five"), ("few-shot examples", "5")),
        ({"max_length": 1024}, samples(30), ("max_length", "1024")),
        ({"lm_eval_version": "0.4.9"}, samples(30), ("lm_eval_version", "0.4.9")),
        ({"versions": {"toy": 2.0}}, samples(30), ("version", "2.0")),
        ({"chat_template_sha": "abc"}, samples(30), ("chat_template_sha", "abc")),
        ({"n-samples": {"toy": {"original": ROWS, "effective": 20}}}, samples(15, 20), None),
    ],
)
def test_another_protocol_is_named_and_in_a_table_of_its_own(changes, rows, named, evaluations):
    evaluations.write("lora", results(0.75), samples(30))
    evaluations.write("vera", results(0.75, "pretrained=org/base,peft=out/vera", **changes), rows)
    assert evaluations.take()[0] == 0
    tables = summarise(evaluations.records())
    assert len(tables) == 2
    assert named is None or any(named in table.differs for table in tables)
    assert named is None or any(
        f"{named[0]} {named[1]}" in to_markdown([one], []).split("\n")[0].replace("\\", "") for one in tables
    )


def test_seeds_and_names_are_given_where_the_files_have_none(evaluations):
    for seed in (0, 1):
        place = f"run{seed}"
        evaluations.write(
            place, results(0.75, f"pretrained=org/base,peft=out/{place}"), samples(30 - 2 * seed) if not seed else None
        )
    for seed in (0, 1):
        file = str(evaluations.folder / f"run{seed}")
        assert (
            main(["import", "lm_eval", file, "--runs", str(evaluations.runs), "--name", "lora", "--seed", str(seed)])
            == 0
        )
    assert sorted((record.adapter.name, record.seed) for record in evaluations.records()) == [("lora", 0), ("lora", 1)]
    assert evaluations.take("--name", "lora")[0] == 2


def test_merged_checkpoints_are_rows_of_the_backbone_that_is_named(evaluations):
    for name in ("first", "second"):
        evaluations.write(
            name, results(0.75, f"pretrained=out/{name}/merged", model_name=f"out/{name}/merged"), samples(30)
        )
    assert evaluations.take("--model", "base")[0] == 0
    (table,) = summarise(evaluations.records())
    assert [row.label for row in table.rows] == ["first", "second"]


def test_another_metric_and_a_filter(evaluations):
    generated = results(0.75)
    generated["results"]["toy"] = {
        "alias": "toy",
        "exact_match,strict-match": 0.5,
        "exact_match,flexible-extract": 0.75,
    }
    generated["higher_is_better"]["toy"] = {"exact_match": True}
    rows = [
        {"doc_id": place, "filter": kind, "exact_match": float(place < right)}
        for kind, right in (("strict-match", 20), ("flexible-extract", 30))
        for place in range(ROWS)
    ]
    evaluations.write("lora", generated, rows)
    assert evaluations.take("--metric", "exact_match,flexible-extract")[0] == 0
    (record,) = evaluations.records()
    assert record.task.metric_primary == "exact_match,flexible-extract" and record.primary_score.value == 0.75
    assert (
        evaluations.take("--metric", "nonsense")[1].count("has no metric nonsense, but exact_match,strict-match") == 1
    )


def test_groups_are_left_to_their_tasks_and_a_score_that_is_no_mean_has_no_rows(evaluations):
    grouped = results(0.75)
    grouped["results"]["group"] = {"alias": "group", "acc,none": 0.75}
    grouped["results"]["toy"] = {"word_perplexity,none": 12.5}
    grouped["higher_is_better"]["toy"] = {"word_perplexity": False}
    evaluations.write("lora", grouped, [{**row, "word_perplexity": [-1.0, 3]} for row in samples(30)])
    evaluations.take()
    (record,) = evaluations.records()
    assert record.predictions_file is None and not record.task.higher_is_better and record.primary_score.value == 12.5


BROKEN: dict[str, Any] = {
    "no JSON": ('{"results": {', None),
    "results_{D}.json, line 1: results is missing": ("{}", None),
    "has its configuration in `configs`": (results(0.75, configs={}), None),
    "n-samples.toy.effective is missing": (results(0.75, **{"n-samples": {}}), None),
    "acc,none of toy is 75.0, more than 1": (results(75.0), None),
    "it is not said whether more acc is better": (results(0.75, higher_is_better={"toy": {"acc": None}}), None),
    "total_evaluation_time_seconds must be a number of seconds": (
        results(0.75, total_evaluation_time_seconds="long"),
        samples(30),
    ),
    "samples_toy_{D}.jsonl, line 1: the mean of its acc,none is 0.7, results_{D}.json says 0.75": (
        results(0.75),
        samples(28),
    ),
    "it has 39 rows of acc,none, results_{D}.json says 40": (results(0.75), samples(30, 39)),
    "samples_toy_{D}.jsonl, line 2: it is no JSON": (results(0.75), json.dumps(samples(30)[0]) + "\n{torn"),
    "samples_toy_{D}.jsonl, line 1: a row needs a doc_id": (results(0.75), '{"acc": 1.0}\n'),
    "rows have the same doc_id twice": (results(0.75), samples(30) + samples(30)),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_broken_files_are_refused_in_a_sentence_and_nothing_is_written(sentence, evaluations):
    evaluations.write("a", results(0.75), samples(30))
    evaluations.write("b", *BROKEN[sentence])
    status, said = evaluations.take()
    assert status == 2 and sentence.replace("{D}", DATE) in said and said.count("\n") == 1
    assert ", line " in said and not evaluations.runs.exists()


def test_two_evaluations_of_one_run_are_not_mixed(evaluations):
    evaluations.write("first", results(0.75), samples(30))
    evaluations.write("second", results(0.75, total_evaluation_time_seconds="13.0"), samples(30))
    status, said = evaluations.take()
    assert status == 2 and "from other bytes" in said and "--seed" in said and not evaluations.runs.exists()


EXAMPLES = COMMANDS["import"].examples


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_run(example, evaluations, tmp_path, monkeypatch):
    evaluations.write("lora", results(0.75))
    place = tmp_path / "peft" / "method_comparison" / "MetaMathQA" / "results"
    place.mkdir(parents=True)
    (place / "lora.json").write_text(json.dumps(result()))
    monkeypatch.chdir(tmp_path)
    assert main(example.split()) == 0 and len(Store("theirs").records()) == 1


def test_options_of_the_other_format_are_refused(tmp_path, capsys):
    assert main(["import", "peft", str(tmp_path), "--seed", "1"]) == 2
    assert "--seed: results of method_comparison say it themselves" in capsys.readouterr().err
