"""A record from elsewhere names classes of the project, of packages that conf names and of folders that are named."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from lorta.analysis.item_scores import _scorer
from lorta.cli.main import main
from lorta.config import identity
from lorta.config.instantiate import build, resolve, trusting
from lorta.config.places import RESULTS
from lorta.drift import reference_runs
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
