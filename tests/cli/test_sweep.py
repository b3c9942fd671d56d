"""`lorta plan|status|retry|collect`: what they say about a store, without torch and in time."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lorta.cli.main import COMMANDS, main
from lorta.cli.run import run_plan
from lorta.config.places import CONF
from lorta.planning.planner import Plan, make_plan
from lorta.planning.spec import RunSpec
from lorta.records.locks import take
from lorta.records.sections import Failure
from lorta.records.store import PROGRESS_NAME, Store, read_export
from lorta.runner.record_builder import first_record
from tests.example_records import finished, unfinished

ROOT = Path(__file__).parents[2]
SWEEP = ["adapter=lora,lorta", "rank=2,4", "task=glue/cola", "trainer=smoke"]


@pytest.fixture
def sweep(tmp_path):
    """Overrides, specs and the store of a sweep of four runs."""
    words = [*SWEEP, f"runtime.runs={tmp_path}/runs", f"runtime.results={tmp_path}/results"]
    return words, make_plan(words, True, CONF).specs, Store(tmp_path / "runs")


def record_of(spec: RunSpec, status: str, **changes):
    """A record of a run in some state; a success has a result."""
    result = finished() if status == "success" else unfinished(status)
    names = ("run_id", "cell_id", "config_hash", "config", "adapter", "protocol", "batch")
    own = {name: getattr(first_record(spec), name) for name in names}
    return replace(result, **own, seed=spec.settings.seed, **changes)


def say(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_the_plan_shows_cells_parameters_and_what_is_done(sweep, capsys):
    words, specs, store = sweep
    store.write(record_of(specs[0], "success"))
    shown = say(capsys, "plan", "-m", *words)
    rows = [line.split() for line in shown.splitlines() if specs[0].cell_id in line or specs[3].cell_id in line]
    assert [row[1:3] + row[5:8] for row in rows] == [["lora", "2", "3,072", "1", "1"], ["lorta", "4", "528", "1", "0"]]
    assert "4 runs: 1 done, 3 missing" in shown


def test_the_plan_tells_the_cost_from_the_nearest_records(sweep, capsys):
    words, specs, store = sweep
    assert "no past record" in say(capsys, "plan", "-m", *words)
    store.write(record_of(specs[0], "success"))
    shown = say(capsys, "plan", "-m", *words, "runtime.workers=2")
    assert "3 runs to do: about 14 s with 2 at a time" in shown  # the example took 9 s


def test_the_plan_counts_duplicates(sweep, capsys):
    words = ["adapter=head_only", "rank=2,4", "task=glue/cola,glue/rte", *sweep[0][4:]]
    said = "2 runs: 0 done, 2 missing (2 duplicates dropped, which change nothing: rank of head_only)"
    assert said in say(capsys, "plan", "-m", *words)
    one = say(capsys, "plan", "-m", "adapter=lora", "task=glue/cola", "rank=2,2", *sweep[0][4:])
    assert "1 run: 0 done, 1 missing (1 duplicate dropped)" in one


def test_rows_other_than_those_of_before_are_named_before_anything_runs(sweep, capsys):
    words, specs, store = sweep
    assert "other files" not in say(capsys, "plan", "-m", *words)
    same, other = (record_of(spec, "success") for spec in specs[:2])
    assert same.task is not None and other.task is not None
    split, print_of = same.task.split_primary, specs[0].fingerprints["evaluation"]
    for record, fingerprint in ((same, print_of), (other, "0" * 64)):
        splits = {split: replace(record.task.splits[split], fingerprint=fingerprint)}
        store.write(replace(record, task=replace(record.task, name=specs[0].settings.task["name"], splits=splits)))
    shown = say(capsys, "plan", "-m", *words)
    task = specs[0].settings.task["name"]
    assert f"{store.root} has 1 run of task={task} from other files than these" in shown
    assert f"(runtime.runs={store.root}-2)" in shown
    assert f"(lorta rm task={task})" in shown


def test_the_plan_says_why_a_cell_is_not_supported(sweep, capsys):
    shown = say(capsys, "plan", "-m", *sweep[0], "adapter.projections=[q,gate]")
    assert "4 runs: 0 done, 4 not supported" in shown
    assert "not supported: lora cannot attach: " in shown


def test_a_wrong_word_is_explained_as_by_run_py(capsys):
    assert main(["plan", "-m", "adapter=lroa"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_every_state_has_its_reason(sweep, capsys):
    words, specs, store = sweep
    store.write(record_of(specs[0], "failed", attempt=2))
    store.write(record_of(specs[1], "running"))
    (store.folder(specs[1].signature) / "checkpoint" / "7").mkdir(parents=True)
    store.write(record_of(specs[2], "running"))
    (store.folder(specs[2].signature) / PROGRESS_NAME).write_text(json.dumps({"step": 3, "max_steps": 9, "loss": 0.5}))
    claim = take(store.folder(specs[2].signature))
    assert claim is not None
    with claim:
        shown = say(capsys, "status", "-m", *words)
    assert "4 runs: 0 done, 1 running, 1 failed, 1 stale, 1 missing" in shown
    assert "oom: no memory left (attempt 2)" in shown
    assert "its process is gone; the same command goes on from step 7" in shown
    assert f"step 3 of 9, loss 0.5, process {os.getpid()} on " in shown


def test_a_run_without_a_record_is_running_while_somebody_holds_it(sweep, capsys):
    """It was called missing, or not at all, until its first record."""
    words, specs, store = sweep
    claim = take(specs[0].folder)
    assert claim is not None
    (specs[1].folder).mkdir()
    (specs[1].folder / "record.json").write_text("[")
    with claim:
        planned, stored = say(capsys, "status", *words), say(capsys, "status", "--runs", str(store.root))
    assert "4 runs: 0 done, 1 running, 3 missing" in planned
    assert "2 runs: 0 done, 1 running, 1 missing" in stored
    for shown in (planned, stored):
        assert f"process {os.getpid()} on " in shown
    assert f"{specs[1].folder / 'record.json'} cannot be read" in stored


def test_retry_runs_what_the_system_failed_on_a_cluster(sweep, capsys, monkeypatch):
    """An error of the system inside a task of an array left no record, and there was nothing to retry."""
    words, specs, store = sweep
    failure = Failure(kind="infra", type="OSError", message="[Errno 5] Input/output error", phase="data")
    store.write(record_of(specs[0], "failed", failure=failure, slurm_job="12_3"))
    asked: list[str] = []
    monkeypatch.setattr("lorta.cli.run.run_plan", lambda plan, *_, **__: asked.extend(s.run_id for s in plan.specs))
    assert main(["retry", "-m", *words, "--kind", "infra"]) == 0
    assert asked == [specs[0].run_id]


def test_finished_runs_of_other_code_are_said_everywhere(sweep, capsys, monkeypatch):
    """A method was edited, and the same command said "1 done"."""
    words, specs, store = sweep
    store.write(record_of(specs[0], "success"))  # of a commit that is not here
    sentence = "1 of 1 done runs were done by other code, commit aaaaaaaaaaaa (which files differ is not known): "
    assert sentence in say(capsys, "plan", *words)
    assert sentence in say(capsys, "status", *words)
    run_plan(Plan(specs=specs[:1]), Console(soft_wrap=True), parallel=False)
    assert sentence in capsys.readouterr().out
    monkeypatch.setattr("lorta.reporting.report.write_full_report", lambda *_: "")
    assert main(["table", "--runs", str(store.root)]) == 0
    assert sentence in capsys.readouterr().err
    assert main(["ls", "--runs", str(store.root)]) == 0
    assert sentence in capsys.readouterr().err


def test_a_plan_and_a_start_say_that_code_is_not_committed(sweep, capsys, monkeypatch):
    words, specs, _ = sweep
    sentence = "not committed: conf/adapter/mine.yaml"
    for module in ("lorta.system.provenance", "lorta.cli.run"):
        monkeypatch.setattr(f"{module}.uncommitted_sentence", lambda: sentence)
    monkeypatch.setattr("lorta.cli.run._run", lambda *_: 1)
    assert sentence in say(capsys, "plan", *words)
    run_plan(Plan(specs=specs[:1]), Console(soft_wrap=True), parallel=False)
    assert sentence in capsys.readouterr().out


def test_changed_inputs_and_older_protocols_make_a_run_stale(sweep, capsys):
    words, specs, store = sweep
    data = replace(specs[0].data, fingerprints={**specs[0].data.fingerprints, "train": "other"})
    inputs, task = replace(specs[0], data=data), specs[1].settings.task | {"protocol": 0}
    protocol = replace(specs[1], settings=specs[1].settings.model_copy(update={"task": task}))
    for spec in (inputs, protocol):
        store.write(record_of(spec, "success"))
    shown = say(capsys, "status", "-m", *words)
    assert "2 stale, 2 missing" in shown
    assert f"inputs changed since run {inputs.signature}: train" in shown
    assert f"run {protocol.signature} has protocol 0, the task is at 2" in shown


def test_retry_leaves_alone_what_did_not_fail_so(sweep, capsys):
    words, specs, store = sweep
    store.write(record_of(specs[0], "failed"))
    assert "nothing to retry" in say(capsys, "retry", "-m", *words, "--kind", "nan,timeout")
    assert main(["retry", "-m", *words, "--kind", "sloth"]) == 2
    assert "no kind sloth" in capsys.readouterr().err


def test_retry_runs_what_failed_and_nothing_else(sweep, capsys):
    words, specs, store = sweep
    words = [*words, "runtime.workers=0"]
    timeout = Failure(kind="timeout", type="TimeoutError", message="late", phase="train")
    store.write(record_of(specs[0], "timeout", failure=timeout))
    store.write(record_of(specs[1], "failed"))
    assert main(["retry", "-m", *words, "--kind", "timeout"]) == 0
    again = store.read(specs[0].signature)
    assert (again.status, again.attempt) == ("success", 2)
    assert store.read(specs[1].signature).status == "failed"
    assert store.read(specs[2].signature) is None


@pytest.mark.parametrize("example", COMMANDS["retry"].examples)
def test_the_examples_of_retry_run(example, tmp_path, monkeypatch, capsys):
    """What they would train is noted instead: of each sweep's first two runs, which failed, and of no other."""
    monkeypatch.chdir(tmp_path)
    words = [word for word in example.split()[1:] if "=" in word]
    specs = make_plan(words, True, CONF).specs[:2]
    for spec, kind in zip(specs, ("oom", "nan"), strict=False):
        failure = Failure(kind=kind, type="Error", message="no", phase="train")
        Store("runs").write(record_of(spec, "failed", failure=failure))
    asked: list[str] = []
    monkeypatch.setattr("lorta.cli.run.run_plan", lambda plan, *_, **__: asked.extend(s.run_id for s in plan.specs))
    assert main(example.split()) == 0
    kinds = example.partition("--kind ")[2] or "oom,nan"
    assert asked == [spec.run_id for spec, kind in zip(specs, ("oom", "nan"), strict=False) if kind in kinds.split(",")]


def test_collect_writes_a_sweeps_records_and_no_others(sweep, capsys, tmp_path):
    words, specs, store = sweep
    store.write(finished(seed=77))
    for spec in specs[:2]:
        store.write(record_of(spec, "success"))
    assert main(["collect", "-m", *words, "--name", "mine", "--results", str(tmp_path / "results")]) == 0
    assert "2 runs of the sweep without a record so far" in capsys.readouterr().err
    found = read_export(tmp_path / "results" / "records" / "mine.jsonl")
    assert {record.run_id for record in found} == {spec.signature for spec in specs[:2]}


def test_collect_compresses_many_records(tmp_path, capsys):
    store = Store(tmp_path / "runs")
    for seed in range(101):
        store.write(finished(seed=seed))
    say(capsys, "collect", "--runs", str(store.root), "--results", str(tmp_path / "results"))
    assert len(read_export(tmp_path / "results" / "records" / "runs.jsonl.gz")) == 101


@pytest.fixture(scope="module")
def large_store(tmp_path_factory) -> Path:
    """Ten thousand records of the size of real ones."""
    root = tmp_path_factory.mktemp("large") / "runs"
    packages = {f"package-{number}": "1.2.3" for number in range(150)}
    text = json.dumps(json.loads(finished().to_json()) | {"environment": {"packages": packages}}, indent=1)
    for number in range(10_000):
        folder = root / f"{number:012x}"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(text.replace(finished().run_id, folder.name))
    return root


def test_ten_thousand_records_are_told_in_a_few_times_the_time_of_parsing_them(large_store):
    """Two seconds of work on a processor that reads and parses them in 0.4; others are slower in both."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    code = (
        "import json, pathlib, sys, time\n"
        f"for file in pathlib.Path({str(large_store)!r}).glob('*/record.json'): json.loads(file.read_bytes())\n"
        "parsing = time.process_time(); from lorta.cli.main import main\n"
        f"main(['status', '--runs', {str(large_store)!r}])\n"
        "print((time.process_time() - parsing) / parsing, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    first, *_, last = done.stdout.splitlines()
    assert first == "10,000 runs: 10,000 done"
    times, torch = last.split()
    assert torch == "False"
    assert float(times) < 6


def test_a_plan_of_120_cells_takes_twice_the_work_of_a_plan_of_one(tmp_path):
    """The smaller one with its imports, which are most of it: 0.9 and 0.5 seconds of a core with nothing else to do."""
    words = ["adapter=head_only,lora,vera,loretta_rep,lorta", "rank=4,8", "task=glue", "seed=0,1"]
    code = (
        "import sys, time; from lorta.cli.main import main\n"
        f"main(['plan', 'runtime.runs={tmp_path}', 'adapter=lora', 'task=glue/rte'])\n"
        "one = time.process_time()\n"
        f"main(['plan', '-m', 'runtime.runs={tmp_path}', *{words!r}])\n"
        "print(time.process_time() / one - 1, len({'torch', 'pebble', 'psutil', 'rich'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    times, idle = done.stdout.splitlines()[-1].split()
    assert "108 runs" in done.stdout
    assert idle == "0"  # modules that no plan of an empty store needs
    assert float(times) < 3


def test_a_sweep_over_data_sets_is_said_in_the_plan_and_ends_without_a_traceback(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name / "glue" / "rte").mkdir(parents=True)
        row = {"sentence1": name, "sentence2": "ball", "label": 0}
        for split in ("train", "validation"):
            (tmp_path / name / "glue" / "rte" / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    words = ["task=glue/rte", "adapter=lora", f"data.root={tmp_path}/a,{tmp_path}/b", f"runtime.runs={tmp_path}/runs"]
    plan = make_plan(words, True, CONF)
    assert "task=glue/rte is planned on 2 data sets, whose scores cannot share a table" in " ".join(plan.notes)
    store = Store(tmp_path / "runs")
    for spec, print_ in zip(plan.specs, ("x", "y"), strict=True):
        record = record_of(spec, "success")
        assert record.task is not None
        splits = {use: replace(split, fingerprint=print_) for use, split in record.task.splits.items()}
        store.write(replace(record, task=replace(record.task, splits=splits)))
    screen = io.StringIO()
    assert run_plan(plan, Console(file=screen, width=400), parallel=True) == 0
    assert "no report: the records of glue/rte come from different data" in screen.getvalue()


def finished_with_rows(spec: RunSpec, store: Store):
    """Write a successful record whose predictions are there."""
    rows = [{"idx": n, "reference": n % 2, "prediction": n % 2 if n % 5 else 1, "logits": [0.1 * n]} for n in range(40)]
    record = record_of(spec, "success")
    value = spec.task.score(rows)["matthews_correlation"]
    file = store.write_rows(record.run_id, "predictions.jsonl", rows)
    assert record.task is not None
    split = record.task.split_primary
    task = replace(record.task, name="glue/cola", metric_primary="matthews_correlation")
    metrics = {split: {"matthews_correlation": value}}
    store.write(replace(record, predictions_file=file, task=task, metrics=metrics))


def test_a_finished_sweep_ends_with_intervals_from_its_predictions_and_the_paths(sweep, tmp_path, capsys):
    """`no scores of single rows are kept`, said the table, though predictions.jsonl holds them."""
    words, specs, store = sweep
    for spec in specs:
        finished_with_rows(spec, store)
    shown = say(capsys, "run", "-m", *words)
    table = shown.partition("\nmethod ")[2].splitlines()[:-1]  # a sentence breaks at the terminal's width
    assert table and max(map(len, table)) <= 80
    assert "4 runs: 0 to do, 4 done" in shown and "95 % confidence interval" in shown
    assert f"written: {tmp_path}/results/reports/latest.{{md,csv,tex}}, {tmp_path}/results/figures/latest.png" in shown
    assert "in place of" not in shown and "in place of the ones of before" in say(capsys, "run", "-m", *words)
    report = (tmp_path / "results" / "reports" / "latest.md").read_text()
    assert "2,000 resamples of seeds and scored rows" in report
    shown = say(capsys, "table", "--runs", str(store.root), "--results", str(tmp_path / "table"))
    assert "2,000 resamples of seeds and scored rows" in shown


def test_results_of_own_runs_go_where_git_does_not_look(sweep, tmp_path, monkeypatch, capsys):
    _, specs, store = sweep
    monkeypatch.chdir(tmp_path)
    finished_with_rows(specs[0], store)
    say(capsys, "table", "--runs", "runs")
    assert (tmp_path / "results" / "local" / "reports" / "runs.md").is_file()
    assert "results/local/" in (ROOT / ".gitignore").read_text().split()
    assert (
        specs[0].settings.model_copy()
        and make_plan([], False, CONF).specs[0].settings.runtime.results == "results/local"
    )


def test_swept_values_tell_runs_apart_everywhere(sweep, capsys, monkeypatch):
    words, _, store = sweep
    swept = [*words[:1], *words[2:], "trainer.learning_rate=0.01,0.02"]
    other, failed = make_plan(swept, True, CONF).specs[:2]
    store.write(record_of(failed, "failed", overrides=failed.overrides))
    shown = say(capsys, "status", "-m", *swept)
    assert f"failed      {failed.run_id}  lora r=8 glue/cola seed 0 learning_rate=0.02: oom" in shown
    store.write(record_of(other, "failed", overrides=(*other.overrides, "runtime.workers=0")))
    shown = say(capsys, "status", "--runs", str(store.root))
    for spec, rate in ((other, "0.01"), (failed, "0.02")):
        assert f"failed      {spec.run_id}  lora r=8 glue/rte seed 0 learning_rate={rate}: oom" in shown
    monkeypatch.setattr("lorta.cli.run._run", lambda *_: 0)
    assert run_plan(make_plan(swept, True, CONF), Console(soft_wrap=True), parallel=True) == 1
    assert f"failed: lora r=8 glue/cola seed 0 learning_rate=0.02, {failed.folder}" in capsys.readouterr().out
    rows = [line for line in say(capsys, "plan", "-m", *swept).splitlines() if "glue/cola" in line]
    assert [row.split()[-1] for row in rows[:2]] == ["learning_rate=0.01", "learning_rate=0.02"]
    assert "learning_rate" not in say(capsys, "status", "-m", *words)
