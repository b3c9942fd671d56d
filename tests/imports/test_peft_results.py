"""Results of PEFT's method_comparison as records: what is taken, what separates tables, and what is refused."""

import json
from typing import Any

import pytest

from lorta.analysis.load import read_source
from lorta.analysis.significance import analyse
from lorta.analysis.summary import summarise
from lorta.analysis.validation import validation_problems
from lorta.analysis.verdicts import Evidence
from lorta.cli.main import main
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.store import Store
from lorta.reporting.tables import to_markdown
from lorta.status.states import plan_states
from tests.example_records import finished

ROWS = 1319  # of GSM8K's test split
PACKAGES = {
    "transformers-version": "5.13.1",
    "torch-version": "2.13.0",
    "peft-version": "0.19.2",
    "peft-commit-hash": "d7",
}


def result(name="lora/llama-3.2-3B-rank32", right=631, r=32, **training):
    """Return a result in the format of method_comparison: `right` of 1,319 answers."""
    config = {
        "model_id": "meta-llama/Llama-3.2-3B",
        "dtype": "bfloat16",
        "max_seq_length": 768,
        "batch_size": 4,
        "batch_size_eval": 50,
        "max_steps": 5000,
        "eval_steps": 250,
        "seed": 0,
        "optimizer_type": "AdamW",
        "optimizer_kwargs": {"lr": 0.0001, "weight_decay": 0.1},
        "query_template": "Question: {query} Think step by step.\nAnswer:",
    }
    steps = [
        {"step": 250, "valid accuracy": 0.3, "train loss": 0.9},
        {"step": 5000, "test accuracy": right / ROWS, "train loss": 0.6, "forgetting": 0.05},
    ]
    return {
        "run_info": {
            "created_at": "2026-07-16T01:54:44+00:00",
            "total_time": 1160.0,
            "experiment_name": name,
            "train_config": {**config, **training},
            "peft_config": {"peft_type": "LORA", "r": r, "target_modules": ["v_proj", "q_proj"]},
            "error_msg": "",
        },
        "train_info": {
            "accelerator_memory_max": 22_000_000_000,
            "train_time": 942.0,
            "file_size": 36_700_000,
            "num_trainable_params": 9_175_040,
            "num_total_params": 3_221_924_864,
            "status": "success",
            "metrics": steps,
        },
        "meta_info": {
            "model_info": {"sha": "13afe5124825"},
            "dataset_info": {"metamath": {"sha": "aa4f34d3d2d3"}, "gsm8k": {"sha": "740312add88f"}},
            "package_info": PACKAGES,
            "system_info": {"accelerator": "NVIDIA L40S"},
        },
    }


@pytest.fixture
def take(tmp_path, capsys):
    """Return a function that imports results and returns the exit status and what was said."""

    def imported(*results, text=None):
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        for number, values in enumerate(results):
            (folder / f"{number}.json").write_text(json.dumps(values, indent=2) if text is None else text)
        status = main(["import", "peft", str(folder), "--runs", f"{tmp_path}/runs"])
        said = capsys.readouterr()
        return status, said.out + said.err

    return imported


def records(tmp_path) -> list[Any]:
    return Store(tmp_path / "runs").records()


def test_a_record_says_what_the_file_says_and_where_it_comes_from(take, tmp_path):
    assert take(result()) == (0, f"1 runs imported into {tmp_path}/runs: lorta table --runs {tmp_path}/runs\n")
    (record,) = records(tmp_path)
    assert (record.adapter.name, record.adapter.rank, record.adapter.learning_rate) == ("lora", 32, 0.0001)
    assert record.primary_score.value == 631 / ROWS and record.primary_score.n == ROWS
    assert (record.params.adapter, record.params.other_trainable) == (9_175_040, 0)
    assert (record.time.train_s, record.time.wall_s, record.storage.adapter_bytes) == (942.0, 1160.0, 36_700_000)
    assert record.imported.files.keys() == {"0.json"} and len(record.imported.files["0.json"]) == 64
    assert record.imported.protocol["max_seq_length"] == "768" and record.imported.protocol["torch"] == "2.13.0"
    assert record.imported.noted["forgetting"] == 0.05
    assert Store(tmp_path / "runs").read_rows(record.run_id, record.history_file)[0] == {"step": 250, "loss": 0.9}


def test_methods_close_to_the_best_are_ties_although_no_row_is_known(take, tmp_path):
    take(result(), result("vera/llama-3.2-3B-default", 467, 256), result("hira/llama-3.2-3B-rank32", 640))
    source = read_source(tmp_path / "runs", None)
    (table,) = summarise(source.records)
    analysis = analyse(table, source.items)
    assert {table.rows[row].adapter for row, _ in analysis.ties} == {"lora", "hira"}
    place = next(number for number, row in enumerate(table.rows) if row.adapter == "lora")
    interval = analysis.intervals[place, "metamath+gsm8k"]
    share = 631 / ROWS
    assert interval.error == pytest.approx(100 * (share * (1 - share) / ROWS) ** 0.5, rel=0.1)
    assert all(pair.mcnemar == () for pair in analysis.comparisons)
    text = to_markdown([table], source.records, [analysis])
    assert "imported from peft" in text and "not run here" in text and "independent samples" in text
    assert "lora r=32 (rank32)" in text


@pytest.mark.parametrize(("training", "named"), [({"max_seq_length": 512}, "512"), ({"max_steps": 300}, "300")])
def test_runs_of_two_protocols_share_no_table_and_the_difference_is_in_the_title(training, named, take, tmp_path):
    take(result(), result("vera/other", **training), result("hira/other"))
    tables = summarise(records(tmp_path))
    (key,) = training
    assert sorted((len(table.rows), table.differs) for table in tables) == [
        (1, ((key, named),)),
        (2, ((key, {"max_seq_length": "768", "max_steps": "5000"}[key]),)),
    ]


def test_other_versions_of_packages_or_data_separate_tables(take, tmp_path):
    newer, other = result("vera/newer"), result("hira/other")
    newer["meta_info"]["package_info"] = {**PACKAGES, "transformers-version": "5.15.0"}
    other["meta_info"]["dataset_info"]["gsm8k"] = {"sha": "0" * 40}
    take(result(), newer, other)
    differing = {name for table in summarise(records(tmp_path)) for name, _ in table.differs}
    assert len(summarise(records(tmp_path))) == 3 and differing == {"transformers", "data gsm8k"}


def test_what_a_method_chooses_makes_rows(take, tmp_path):
    take(result(), result("lora/llama-3.2-3B-rank32-slow", optimizer_kwargs={"lr": 1e-5}))
    (table,) = summarise(records(tmp_path))
    assert [row.label for row in table.rows] == ["lora r=32 (rank32)", "lora r=32 (rank32-slow)"]


def test_imported_runs_are_no_done_runs_of_a_sweep(take, tmp_path):
    take(result())
    (record,) = records(tmp_path)
    plan = make_plan(["adapter=lora", "task=glue/rte", "trainer=smoke", f"runtime.runs={tmp_path}/runs"], True, CONF)
    (state,) = plan_states(plan, {spec.run_id: "run" for spec in plan.runs})
    assert state.state == "missing" and plan.runs[0].run_id != record.run_id


def test_imported_records_are_counted_apart_and_share_no_suite_with_own_ones(take, tmp_path, capsys):
    take(result())
    assert main(["status", "--runs", f"{tmp_path}/runs"]) == 0
    said = capsys.readouterr().out
    assert "1 imported records, which are no runs of this project" in said and "0 runs" in said
    own = finished()
    (problem,) = [one for one in validation_problems([*records(tmp_path), own]) if "stand beside" in one]
    assert problem.startswith("1 imported records stand beside 1 that were made here")
    assert validation_problems(records(tmp_path)) == []
    judged = Evidence.of([*records(tmp_path), own], {}).runs
    assert {record.run_id for of_one in judged.values() for record in of_one} == {own.run_id}


def test_the_same_file_again_changes_nothing_and_another_one_of_the_same_run_is_refused(take, tmp_path):
    take(result())
    assert take(result())[1].startswith("0 runs imported") and len(records(tmp_path)) == 1
    status, said = take(result(right=640))
    assert status == 2 and "from other bytes" in said
    assert records(tmp_path)[0].primary_score.value == 631 / ROWS


def test_full_fine_tuning_has_no_adapter_weights_and_a_made_up_size_is_none(take, tmp_path):
    full = result("full-finetuning/llama-3.2-3B")
    full["run_info"]["peft_config"], full["train_info"]["file_size"] = None, 99_999_999
    take(full)
    (record,) = records(tmp_path)
    assert (record.params.adapter, record.params.other_trainable) == (0, 9_175_040)
    assert record.storage is None and record.adapter.rank is None


def test_images_have_their_own_metric_and_number_of_rows(take, tmp_path):
    image = result("oft/flux2-klein-default", r=0, dataset_id="peft-internal-testing/cats", test_size=4)
    image["meta_info"]["dataset_info"] = {"sha": "37df3244ae3a", "created_at": "2026-03-09"}
    image["train_info"]["metrics"] = [{"step": 750, "test dino_similarity": 0.66, "drift": float("nan")}]
    take(image)
    (record,) = records(tmp_path)
    assert (record.task.name, record.task.metric_primary, record.primary_score.n) == ("cats", "dino_similarity", 4)
    assert record.adapter.rank is None and "drift" not in record.imported.noted


def test_a_cancelled_run_is_listed_and_in_no_table(take, tmp_path):
    stopped = result()
    stopped["train_info"] |= {"status": "canceled", "metrics": []}
    stopped["run_info"]["error_msg"] = "manually interrupted"
    assert take(stopped)[0] == 0
    (record,) = records(tmp_path)
    assert (record.status, record.reason) == ("cancelled", "manually interrupted") and summarise([record]) == ()


def without(*keys):
    values = result()
    node = values
    for key in keys[:-1]:
        node = node[key]
    del node[keys[-1]]
    return values


def changed(value, *keys):
    values = result()
    node = values
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = value
    return values


BROKEN = {
    "run_info.experiment_name is missing": without("run_info", "experiment_name"),
    "train_info.status is missing": without("train_info"),
    "run_info.train_config.max_steps must be a whole number": changed("many", "run_info", "train_config", "max_steps"),
    "meta_info.package_info is missing": without("meta_info", "package_info"),
    "needs one score of the test split": changed([], "train_info", "metrics"),
    "must be a number from 0 to 1, got 35.4": changed([{"test accuracy": 35.4}], "train_info", "metrics"),
    "must be one of success, canceled, failed, got fine": changed("fine", "train_info", "status"),
    "must be a time such as": changed("yesterday", "run_info", "created_at"),
    "the number of test rows of math is not known": changed({"math": {"sha": "a"}}, "meta_info", "dataset_info"),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_what_is_no_result_is_refused_with_file_and_line_and_nothing_is_written(sentence, take, tmp_path):
    status, said = take(result("vera/whole"), BROKEN[sentence])
    assert status == 2 and sentence in said and said.count("\n") == 1
    assert "1.json, line " in said and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{\n "run_info": {,', "0.json, line 2: it is no JSON"),
        ("[1, 2]", "0.json, line 1: it must hold a JSON object"),
        ("", "0.json, line 1: it is no JSON"),
        ("[" * 100_000, "0.json, line 1: it is nested too deep"),
    ],
)
def test_what_is_no_json_is_refused(text, sentence, take, tmp_path):
    status, said = take(None, text=text)
    assert status == 2 and sentence in said and not (tmp_path / "runs").exists()


def test_the_line_is_that_of_the_key(take):
    broken = changed("many", "run_info", "train_config", "max_steps")
    line = json.dumps(broken, indent=2).split("\n").index('      "max_steps": "many",') + 1
    assert f"line {line}: run_info.train_config.max_steps" in take(broken)[1]


def test_a_path_without_results_is_refused(tmp_path, capsys):
    assert main(["import", "peft", f"{tmp_path}/none"]) == 2 and "there is no" in capsys.readouterr().err
    assert main(["import", "peft", str(tmp_path)]) == 2 and "holds no result" in capsys.readouterr().err
