"""`lorta show | ls | diff | rm | list`: what they say of a store, and what they never remove."""

import io
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorta.cli.filters import filtered, kept
from lorta.cli.main import COMMANDS, main
from lorta.cli.run import HELP
from lorta.cli.runs import sparkline
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.locks import take
from lorta.records.store import Store
from lorta.system.source_files import sources_sha256
from lorta.system.terminal import counted
from tests.example_records import finished, unfinished


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two tasks, three methods, one failure."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    store = Store("runs")
    for name, value in (("lora", 0.7), ("vera", 0.9), ("lorta", 0.8)):
        store.write(finished(name, value=value, learning_rate=0.01 if name == "vera" else 0.02))
    store.write(replace(finished("lora", task="cola", value=0.3), overrides=("adapter=lora", "trainer.lr=1")))
    store.write(unfinished("failed", adapter="vera", task="stsb"))
    return store


def say(capsys, *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_the_best_run_of_each_task_is_first(store, capsys):
    rows = [line.split() for line in say(capsys, "ls").splitlines()]
    assert [row[2] for row in rows[:4]] == ["0.3000", "0.9000", "0.8000", "0.7000"]
    assert rows[4][1] == "failed" and rows[-1] == ["5", "runs", "in", "runs"]


def test_runs_that_were_scored_on_other_rows_or_by_another_protocol_are_ranked_apart(store, capsys):
    theirs = finished("dora", value=0.95)
    splits = {name: replace(split, fingerprint=f"{name} of another file") for name, split in theirs.task.splits.items()}
    store.write(replace(theirs, task=replace(theirs.task, splits=splits)))
    older = finished("loha", value=0.75)
    store.write(replace(older, task=replace(older.task, protocol=0)))
    lines = say(capsys, "ls", "task=glue/rte").splitlines()[:-1]
    assert [line.partition(" s  ")[2].split()[0] for line in lines] == ["loha", "vera", "lorta", "lora", "dora"]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ("adapter=lora", 2),
        ("adapter=lo*", 3),
        ("adapter=lora,vera task=glue/rte", 2),
        ("status=failed", 1),
        ("trainer.learning_rate=1e-2", 1),
        ("rank=4 seed=0 status=success", 4),
        ("adapter=dora", 0),
    ],
)
def test_filters_are_names_patterns_and_numbers(store, capsys, words, count):
    assert f"{counted(count, 'run')} in runs" in say(capsys, "ls", *words.split())


def test_one_run_is_shown_whole_by_the_beginning_of_its_id(store, capsys):
    record = finished("vera", value=0.9, learning_rate=0.01)
    rows = [{"step": step, "loss": 2.0 - 0.1 * step} for step in range(1, 11)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (store.folder(record.run_id) / "history.jsonl").write_text(text + '{"step": 11, "lo')  # still written
    shown = say(capsys, "show", record.run_id[:6])
    assert f"{record.run_id}  vera r=4 glue/rte seed 0: success" in shown
    assert "validation accuracy 0.9000" in shown and "1,000 adapter" in shown
    assert f"loss      {sparkline([row['loss'] for row in rows])}  1.9 to 1, steps 1 to 10" in shown
    failed = unfinished("failed", adapter="vera", task="stsb")
    (store.folder(failed.run_id) / "log.txt").write_text("step 1 of 9\n")
    shown = say(capsys, "show", failed.run_id)
    assert "failure   oom in " in shown and f"log       runs/{failed.run_id}/log.txt" in shown


def test_a_sparkline_falls_with_its_values():
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁" or sparkline([3.0, 2.0, 1.0]) == "█▄▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert len(sparkline([float(n) for n in range(1000)])) == 40


def test_two_runs_differ_in_what_is_listed(store, capsys):
    ids = [finished(name, value=v, learning_rate=r).run_id for name, v, r in (("lora", 0.7, 0.02), ("vera", 0.9, 0.01))]
    shown = say(capsys, "diff", *ids)
    differing = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:]}
    assert differing["adapter.name"] == ["lora", "vera"]
    assert differing["trainer.learning_rate"] == ["0.02", "0.01"]
    assert differing["metrics.validation.accuracy.value"] == ["0.7", "0.9"]
    assert "adapter.rank" not in differing
    assert "differ in nothing" in say(capsys, "diff", ids[0], ids[0])


def test_runs_of_other_code_are_said_and_compared(store, capsys, monkeypatch):
    """A method was edited; `lorta show` and `lorta diff` gave its old runs as if it were still so."""
    there, here = finished("vera", value=0.9, learning_rate=0.01), finished("lora", value=0.7, learning_rate=0.02)
    assert here.code is not None
    same = replace(here, code=replace(here.code, git_sha="b" * 40, sources_sha256=sources_sha256(here.config)))
    store.write(same)
    words = "other code, commit aaaaaaaaaaaa (which files differ is not known)"
    assert f"code      {words}" in say(capsys, "show", there.run_id)
    assert "code      bbbbbbbbbbbb\n" in say(capsys, "show", same.run_id)
    assert main(["diff", there.run_id, same.run_id]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"{there.run_id}: {words}\n"
    assert ["code.commit", "aaaaaaaaaaaa", "bbbbbbbbbbbb"] in [line.split() for line in captured.out.splitlines()]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("loro", "loro: no adapter, task or model of these runs; did you mean lora"),
        ("lora,loro", "loro: no adapter, task or model of these runs; did you mean lora"),
        ("=lora", "=lora: a filter is KEY=VALUE"),
        ("adapter=lora adapter=vera", "adapter is given twice: adapter=lora,vera takes runs of either value"),
        ("status=sucess", "did you mean success"),
        ("adaptr=lora", "did you mean adapter"),
    ],
)
def test_all_commands_read_filters_alike(store, capsys, words, remedy):
    """`lorta report` had a reader of its own, and of one key given twice the first was lost without a word."""
    for command in (["ls"], ["rm", "--yes"], ["report", "--to", "page.html"]):
        assert main([*command, *words.split()]) == 2
        assert remedy in capsys.readouterr().err
    assert len(store.records()) == 5


@pytest.mark.parametrize("words", ["show 123", "diff 1 2", "ls", "rm id=1 --yes"])
def test_a_store_that_is_not_there_is_said_by_all_commands(words, tmp_path, monkeypatch, capsys):
    """`lorta show` spoke of a run that is not there."""
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    assert "there is no store runs: name it with --runs" in capsys.readouterr().err


def test_runs_that_are_to_be_removed_are_told_apart(store, capsys, monkeypatch):
    store.write(finished("lora", value=0.6, learning_rate=0.005))
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main(["rm", "adapter=lora", "task=glue/rte"]) == 1
    listed = [line for line in capsys.readouterr().out.splitlines() if " lora r=4 " in line]
    assert sorted(line.rpartition("learning_rate=")[2] for line in listed) == ["0.005", "0.02"]


def test_nobody_who_answers_is_a_sentence_and_removes_nothing(store, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["rm", "adapter=lora"]) == 2
    assert "nothing was removed: add --yes" in capsys.readouterr().err
    assert len(store.records()) == 5


def test_runs_are_sorted_by_time_size_and_date(store, capsys):
    """The fastest, the smallest and the oldest first."""
    sizes = {"lora": (9.0, 100, "2026-01-01T00:00:00Z"), "vera": (2.0, 900, "2026-03-01T00:00:00Z"),
             "lorta": (5.0, 10, "2026-02-01T00:00:00Z")}  # fmt: skip
    for record in store.records():
        if record.status == "success" and record.task.name == "glue/rte":
            seconds, count, date = sizes[record.adapter.name]
            changed = replace(record, created_at=date, time=replace(record.time, train_s=seconds))
            params = replace(record.params, adapter=count, trainable=count + record.params.head)
            store.write(replace(changed, params=params))

    def order(key: str) -> list[str]:
        lines = say(capsys, "ls", "task=glue/rte", "status=success", "--sort", key).splitlines()[:-1]
        return [line.partition(" s  ")[2].split()[0] for line in lines]

    assert {key: order(key) for key in ("time", "size", "date")} == {
        "time": ["vera", "lorta", "lora"],
        "size": ["lorta", "lora", "vera"],
        "date": ["lora", "lorta", "vera"],
    }


@pytest.mark.parametrize("words", ["lora", "lor[ao]", "lora rte", "adapter=lora", "lora task=glue/rte", "nothing,lora"])
def test_a_name_alone_is_that_of_an_adapter_task_or_model(store, words):
    records = [*store.records(), finished("nothing", "sst2")]
    chosen = kept(records, words.split())
    wanted = {"lora", "nothing"} if "nothing" in words else {"lora"}
    assert {record.adapter.name for record in chosen} == wanted
    if "nothing" not in words:
        assert {str(record.get("adapter", "name")) for record in filtered(store.root, words.split())} == wanted


@pytest.mark.parametrize(("word", "sentence"), [("abc", "no run of runs with an id that begins so"), ("", "begins so")])
def test_an_id_that_is_none_is_one_sentence(store, capsys, word, sentence):
    assert main(["show", word]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("adaptr=lora", "did you mean adapter"),
        ("trainer.learning_rat=0.01", "did you mean trainer.learning_rate"),
        ("zzz=1", "there are: adapter, rank, task, model, seed, status, id"),
        ("status=sucess", "did you mean success"),
    ],
)
def test_a_filter_that_no_run_can_pass_is_refused(store, capsys, word, remedy):
    for command in (["ls", word], ["rm", word, "--yes"]):
        assert main(command) == 2
        assert remedy in capsys.readouterr().err
    assert len(store.records()) == 5


def of_model(model: str, **trainer: Any):
    """A run with a model among its settings, such as the harness writes."""
    record = finished("lora", task="mrpc", model=model, **trainer)
    return replace(record, config=record.config | {"model": {"name": model, "dtype": "fp32"}, "trainer": trainer})


def test_equal_names_are_told_apart_by_model_and_settings(store, capsys):
    for record in (of_model("tiny", num_train_epochs=1), of_model("tiny", num_train_epochs=9), of_model("minilm")):
        store.write(record)
    lines = say(capsys, "ls", "task=glue/mrpc").splitlines()
    ends = sorted(line.partition("seed 0 ")[2] for line in lines[:-1])
    assert ends == ["model=minilm", "model=tiny trainer.num_train_epochs=1", "model=tiny trainer.num_train_epochs=9"]
    assert lines[-1] == "3 runs in runs"
    assert "model=" not in say(capsys, "ls", "model=tiny"), "all runs have it"


def test_one_run_is_shown_with_its_model_and_trainer(store, capsys):
    record = of_model("tiny", num_train_epochs=9, learning_rate=0.01)
    store.write(record)
    lines = say(capsys, "show", record.run_id).splitlines()
    assert "model     dtype=fp32 name=tiny" in lines
    assert "trainer   learning_rate=0.01 num_train_epochs=9" in lines


def test_one_run_is_no_plural(store, capsys):
    assert say(capsys, "ls", "status=failed").splitlines()[-1] == "1 run in runs"
    assert "1 run removed from runs" in say(capsys, "rm", "status=failed", "--yes")


def test_values_of_two_runs_stand_in_columns_with_as_many_digits_as_tell_them_apart(store, capsys):
    rates = (0.1234567890123, 0.1234567890124, 0.3333333333333333)
    first, near, far = (finished("lora", value=0.7, learning_rate=rate) for rate in rates)
    for record in (first, near, far):
        store.write(record)
    lines = say(capsys, "diff", first.run_id, far.run_id).splitlines()
    assert lines[1].split() == ["trainer.learning_rate", "0.123457", "0.333333"]
    assert lines[0].index(far.run_id) == lines[1].index("0.333333")
    lines = say(capsys, "diff", first.run_id, near.run_id).splitlines()
    assert lines[1].split()[1:] == ["0.1234567890123", "0.1234567890124"]
    assert lines[0].index(near.run_id) == lines[1].index("0.1234567890124")


def test_rm_asks_and_removes_what_passes(store, capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "n")
    assert main(["rm", "status=failed"]) == 1
    assert len(store.records()) == 5
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert main(["rm", "status=failed"]) == 0
    assert {record.status for record in store.records()} == {"success"}
    assert main(["rm", "adapter=lora", "task=glue/rte", "--yes"]) == 0
    assert len(store.records()) == 3
    assert main(["rm", "nonsense"]) == 2 and len(store.records()) == 3
    assert "nonsense: no adapter, task or model of these runs" in capsys.readouterr().err


def test_rm_leaves_runs_at_work_and_committed_records(store, capsys):
    record = finished("lora", value=0.7, learning_rate=0.02)
    claim = take(store.folder(record.run_id))
    assert claim is not None
    with claim:
        assert "left alone, because at work: 1 run" in say(capsys, "rm", "task=glue/rte", "--yes")
    assert record.run_id in {record.run_id for record in store.records()}
    for words in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *words], cwd=store.root, check=True)
    assert main(["rm", "adapter=*", "--yes"]) == 2
    assert "committed records, which are never removed" in capsys.readouterr().err
    assert len(store.records()) == 3


def test_every_choice_is_listed_with_the_first_line_of_its_file(capsys):
    assert "adapter=lora " in say(capsys, "list", "adapters")
    shown = say(capsys, "list", "tasks")
    assert "task=classification" in shown and "Your own texts with classes" in shown
    assert "model=minilm" in say(capsys, "list", "models") and "experiment=" in (said := say(capsys, "list", "recipes"))
    assert "@package" not in said and "GSM8K with a real decoder" in said


ELSEWHERE = {  # command -> what runs its examples
    "retry": "tests/cli/test_sweep.py",
    "import": "tests/imports/test_lm_eval_results.py",
    "restore": "tests/cli/test_restore.py",
    "drift": "tests/drift/test_reference_runs.py",
    "export": "tests/cli/test_adapters.py",
    "fit": "tests/cli/test_adapters.py",
}
EXAMPLES = [one for command in COMMANDS.values() for one in command.examples if not one.startswith(tuple(ELSEWHERE))]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_each_help_run(example, store, capsys):
    run_id = finished("lora", value=0.7, learning_rate=0.02).run_id
    asks = ["--yes"] if example.startswith("rm") else []
    assert main([*example.replace("ID", run_id).split(), *asks]) == 0


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_examples_of_commands_that_train_or_need_files_run_elsewhere(name):
    assert f'COMMANDS["{name}"].examples' in (Path(__file__).parents[2] / ELSEWHERE[name]).read_text()


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "run"])
def test_each_help_has_three_examples(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "-h"])
    assert capsys.readouterr().out.count(f"\n  lorta {name}") == 3


def test_the_help_of_run_has_three_examples_that_plan_offline():
    lines = re.findall(r"^  \{command\} *(.*?) {2,}\S", HELP, flags=re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        plan = make_plan(line.removeprefix("-m ").split(), line.startswith("-m "), CONF)
        assert plan.problems == () and plan.runs, line
