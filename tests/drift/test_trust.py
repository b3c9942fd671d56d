"""A record from elsewhere names classes of the project, of packages that conf names and of folders that are named."""

import json
import shutil
import sys
from pathlib import Path
from runpy import run_path

import pytest

from lorta.analysis.item_scores import _scorer
from lorta.cli.main import main
from lorta.config import identity
from lorta.config.instantiate import build, resolve, trusting
from lorta.config.places import CONF, RESULTS
from lorta.drift import reference_runs
from lorta.planning.planner import make_plan
from lorta.records.record import RunRecord
from lorta.records.store import RECORD_NAME, Store

COMMITTED = min((RESULTS / "reference_runs").glob(f"*/{RECORD_NAME}")).parent


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A folder with a package that tells when it is imported, and a reference run whose settings name it."""
    code = tmp_path / "code"
    (code / "stranger").mkdir(parents=True)
    (code / "stranger/__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\n"
        "from lorta.api.peft_adapter import PeftAdapter\nclass Theirs(PeftAdapter):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(code))
    monkeypatch.delitem(sys.modules, "stranger", raising=False)
    folder = Path(shutil.copytree(COMMITTED, tmp_path / "runs" / COMMITTED.name))
    values = json.loads((folder / RECORD_NAME).read_text())
    values["overrides"].append("adapter._target_=stranger.Theirs")
    (folder / RECORD_NAME).write_text(json.dumps(values))
    yield folder
    sys.path[:] = [path for path in sys.path if path != str(code)]


def imported(folder: Path) -> bool:
    return (folder.parents[1] / "imported").exists()


def test_drift_runs_no_code_that_only_a_record_names(strangers, capsys):
    assert main(["drift", "--reference-runs", str(strangers.parent)]) == 2
    assert "'stranger.Theirs' is code of stranger" in capsys.readouterr().err
    assert not imported(strangers)


def test_drift_runs_code_of_a_folder_that_is_named(strangers, monkeypatch):
    seen = []
    monkeypatch.setattr(
        reference_runs, "check", lambda folder, conf: seen.append(resolve("stranger.Theirs")) or NOTHING
    )
    code = str(strangers.parents[1] / "code")
    assert main(["drift", "--reference-runs", str(strangers.parent), "--code", code]) == 0
    assert (seen[0].__name__, imported(strangers)) == ("Theirs", True)


NOTHING = reference_runs.Drift("a reference run", (), ())


def test_a_folder_of_code_that_is_not_there_is_a_sentence(strangers, capsys):
    assert main(["drift", "--reference-runs", str(strangers.parent), "--code", "/nowhere"]) == 2
    assert "--code /nowhere: no such folder" in capsys.readouterr().err


SCRIPTS = {"mt_bench": ["--questions", "questions.jsonl"], "second_opinion": []}


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_that_load_a_run_run_no_code_that_only_its_record_names(name, strangers, monkeypatch, capsys):
    """Issue 17, A26: a run folder may come from elsewhere, whoever reads it."""
    monkeypatch.chdir(strangers.parents[1])
    question = {"question_id": 1, "category": "writing", "turns": ["Write."]}
    Path("questions.jsonl").write_text(json.dumps(question) + "\n")
    script = run_path(str(Path(__file__).parents[2] / "scripts" / f"{name}.py"))
    monkeypatch.setattr(sys, "argv", [name, str(strangers), *SCRIPTS[name]])
    assert script["main"]() == 2
    assert "'stranger.Theirs' is code of stranger" in capsys.readouterr().err
    assert not imported(strangers)
    monkeypatch.setattr(sys, "argv", [name, str(strangers), *SCRIPTS[name], "--code", "code"])
    monkeypatch.setattr("lorta.runner.reload.find_model", lambda settings: resolve("stranger.Missing"))
    assert script["main"]() == 2
    assert "cannot import 'stranger.Missing'" in capsys.readouterr().err  # the class itself was there
    assert imported(strangers)


@pytest.mark.parametrize("file", ["evil.py", "{folder}/evil.py", "../{name}/evil.py"])
def test_a_record_names_no_file_of_metrics_that_is_run(file, tmp_path, monkeypatch):
    """Of a task by one YAML, `metrics` may hold FILE.py:FUNCTION: code, too."""
    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text("open('imported', 'w').close()\ndef right(predictions, references):\n    return 1.0\n")
    named = file.format(folder=tmp_path, name=tmp_path.name)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["task=classification", "model=tiny", f"data.root={own_rows(tmp_path)}"]
    (spec,) = make_plan(words, False, CONF).specs
    node = spec.settings.task | {"metrics": ["accuracy", f"{named}:right"]}
    with trusting(), pytest.raises(ValueError, match=rf"{named}:right is code of .*--code FOLDER"):
        build(node)
    assert not Path("imported").exists()
    with trusting([tmp_path]):
        assert build(node).score([])["right"].reason == "no rows were scored"
    with trusting():  # this process has run it by words of its own
        build(node)


def own_rows(folder: Path) -> Path:
    (folder / "rows").mkdir()
    for split in ("train", "validation"):
        (folder / "rows" / f"{split}.csv").write_text("text,label\n" + "an old dog,a\na new ball,b\n" * 4)
    return folder / "rows"


def test_a_block_in_another_trusts_what_that_does(strangers):
    with trusting([strangers.parents[1] / "code"]), trusting():
        assert resolve("stranger.Theirs").__name__ == "Theirs"
    with trusting(), pytest.raises(ValueError, match="is code of stranger"):
        resolve("stranger.Theirs")


@pytest.mark.parametrize("path", ["os.system", "lorta.cli.drift.shutil.rmtree", "peft.os:system", "builtins.exec"])
def test_a_way_through_our_modules_leads_nowhere_else(path):
    with trusting(), pytest.raises(ValueError, match=r"is code of|cannot import"):
        resolve(path)


def test_a_function_of_ours_is_not_called_in_place_of_a_class(tmp_path):
    node = {"_target_": "lorta.records.store.write_atomically", "path": tmp_path / "x", "content": "x"}
    with trusting(), pytest.raises(ValueError, match="is no class"):
        build(node)
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_strangers_records_runs_no_code_of_theirs(strangers):
    record = Store(strangers.parent).read(strangers.name)
    assert record is not None
    config = {**record.config, "task": {**record.config["task"], "_target_": "stranger.Theirs"}}
    values = json.loads(record.to_json()) | {"config": config}
    with pytest.warns(UserWarning, match="'stranger.Theirs' is code of stranger"):
        assert _scorer(RunRecord.from_json(json.dumps(values), "a record")) is None
    assert not imported(strangers)


def test_a_plan_over_a_strangers_store_runs_no_code_of_theirs(strangers):
    values = json.loads((strangers / RECORD_NAME).read_text())
    values["config"]["adapter"]["_target_"] = "stranger.Theirs"
    del values["identity_version"]  # an older record, whose name is computed anew
    (strangers / RECORD_NAME).write_text(json.dumps(values))
    assert len(identity.earlier_runs(strangers.parent, frozenset())) == 1
    assert not imported(strangers)
