"""What a run is called: names and values, not where code lies; runs of before keep their names."""

import json
import shutil
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from lorta.cli.run import main
from lorta.config.compose import compose_cells
from lorta.config.identity import FORMER_KEYS, SECTIONS, cell_id, earlier_runs, identity, run_id, section_defaults
from lorta.config.instantiate import resolve
from lorta.config.overrides import Problems, parse_overrides
from lorta.config.places import CONF
from lorta.planning.planner import make_plan
from lorta.records.record import RunRecord
from lorta.records.store import Store, read_export

ROOT = Path(__file__).parents[2]
EARLIER = Path(__file__).parent / "earlier_store.jsonl"  # records of every kind, as the first identities named them
PROTOCOL_1 = ("task.protocol=1", "trainer.max_grad_norm=null", "trainer.shuffle_groups=false")  # that of these records
ADAPTERS = sorted(file.stem for file in (CONF / "adapter").glob("*.yaml"))
TASKS = sorted(
    str(file.relative_to(CONF / "task").with_suffix(""))
    for file in (CONF / "task").rglob("*.yaml")
    if "_target_" in yaml.safe_load(file.read_text())
)


def moved(node: object, module: str) -> object:
    """Return a node whose every class path names the same class in another module."""
    if isinstance(node, list):
        return [moved(item, module) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: f"{module}.{value.rpartition('.')[2]}" if key == "_target_" else moved(value, module)
        for key, value in node.items()
    }


def composed(words: str) -> dict[str, dict[str, object]]:
    """Return the adapter and task of a command line; where their data are does not matter."""
    problems = Problems()
    (cell,) = compose_cells(parse_overrides([words], False, CONF, problems), CONF, problems)
    assert not problems
    return {group: cell.config[group] for group in ("adapter", "task")}


@pytest.fixture
def elsewhere(monkeypatch):
    """Another module that holds the classes that are put into it."""
    module = ModuleType("moved_elsewhere")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("words", [f"adapter={name}" for name in ADAPTERS] + [f"task={name}" for name in TASKS])
def test_a_class_in_another_module_is_the_same_run(words, elsewhere):
    config = composed(words)
    for group in ("adapter", "task"):
        target = config[group]["_target_"]
        setattr(elsewhere, target.rpartition(".")[2], resolve(target))
    other = {**config, **{group: moved(config[group], "moved_elsewhere") for group in ("adapter", "task")}}
    assert json.dumps(other) != json.dumps(config)
    assert run_id(other) == run_id(config)


def test_no_class_path_is_in_an_identity():
    for name in ADAPTERS:
        text = json.dumps(identity(make_plan([f"adapter={name}"], False, CONF).specs[0].config))
        assert (
            '"_target_"' not in text
            and "baselines." not in text
            and "experiments." not in text
            and "lorta." not in text
        )


def test_names_tell_methods_and_tasks_apart():
    for group, names in (("adapter", ADAPTERS), ("task", TASKS)):
        files = [CONF / group / f"{name}.yaml" for name in names]
        own = [yaml.safe_load(file.read_text()).get("name", file.stem) for file in files]
        assert len(set(own)) == len(own), group


def test_a_key_at_the_default_of_its_class_is_left_out():
    config = make_plan(["adapter=lora", "task=glue/cola"], False, CONF).specs[0].config
    with_more = {**config, "adapter": {**config["adapter"], "norms": False, "rate_factors": {}, "feedforward": []}}
    assert run_id(with_more) == run_id(config)
    assert run_id({**config, "adapter": {**config["adapter"], "norms": True}}) != run_id(config)
    assert "quantization" not in identity(config)["model"] and "holdout" not in identity(config)["data"]


def test_defaults_that_identities_leave_out_never_change():
    """A default that changed would give two different runs one name. Add lines for new keys; change none."""
    pinned = json.loads((Path(__file__).parent / "identity_defaults.json").read_text())
    targets = {str(composed(f"adapter={name}")["adapter"]["_target_"]) for name in ADAPTERS}
    targets |= {str(composed(f"task={name}")["task"]["_target_"]) for name in TASKS}
    now = {name: section_defaults(kind) for name, kind in SECTIONS.items()}
    now |= {target.rpartition(".")[2]: class_defaults(target) for target in sorted(targets)}
    assert json.loads(json.dumps(now)) == pinned


def class_defaults(target: str) -> dict[str, object]:
    kind = resolve(target)
    assert is_dataclass(kind), f"{target}: identities know the defaults of dataclasses only"
    items = [item for item in fields(kind) if item.default is not MISSING or item.default_factory is not MISSING]
    return {item.name: item.default_factory() if item.default is MISSING else item.default for item in items}


def earlier_store(folder: Path) -> list[RunRecord]:
    """Write the records of before, each byte as it was, and return them."""
    records = []
    for line in EARLIER.read_text().splitlines():
        record = json.loads(line)
        (folder / record["run_id"]).mkdir(parents=True)
        (folder / record["run_id"] / "record.json").write_text(json.dumps(record, indent=1) + "\n")
        records.append(RunRecord.from_json(line, "earlier"))
    return records


def test_runs_of_before_count_as_done_and_keep_their_names(tmp_path, capsys):
    records = earlier_store(tmp_path / "runs")
    before = {file: file.read_bytes() for file in (tmp_path / "runs").rglob("*") if file.is_file()}
    words = ["-m", "adapter=lora,lorta,loretta_rep,full,metatt_5d,pela", "task=glue/rte,folding", "trainer=smoke"]
    words += PROTOCOL_1
    words += ["seed=0", f"runtime.runs={tmp_path}/runs", f"runtime.results={tmp_path}/results"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "12 runs: 0 to do, 11 done, 1 not supported" in shown
    new = {folder.name for folder in (tmp_path / "runs").iterdir()} - {record.run_id for record in records}
    assert [Store(tmp_path / "runs").last(name).status for name in new] == ["skipped"]
    assert {file: file.read_bytes() for file in before} == before


def test_whole_trials_of_before_count_in_a_search_of_today(tmp_path):
    names = {record.run_id for record in earlier_store(tmp_path)}
    words = ["adapter=lora", "tune=lr", "task=glue/rte", "trainer=smoke", "seed=5", *PROTOCOL_1]
    words += ["tune.seeds=[0,1000]", "tune.rungs=[1.0]", "tune.extensions=0", f"runtime.runs={tmp_path}"]
    trials = make_plan(words, False, CONF).trials
    known = [trial for trial in trials if trial.run_id in names]
    assert (len(trials), len(known)) == (8, 4)
    assert {trial.settings.seed for trial in known} == {0}


def test_force_runs_under_the_present_name(tmp_path):
    earlier_store(tmp_path / "runs")
    words = ["adapter=lora", "task=glue/rte", "trainer=smoke", f"runtime.runs={tmp_path}/runs", *PROTOCOL_1]
    (done,), (again,) = (make_plan([*words, *more], False, CONF).specs for more in ([], ["runtime.force=true"]))
    assert done.signature == again.signature
    assert done.run_id != done.signature and again.run_id == again.signature


def test_torn_records_and_failures_of_before_are_no_results(tmp_path):
    records = earlier_store(tmp_path)
    torn, failed, *_ = ended = [record for record in records if record.status == "success"]
    (tmp_path / torn.run_id / "record.json").write_text('{"run_id": "')
    text = json.loads((tmp_path / failed.run_id / "record.json").read_text()) | {"status": "failed", "failure": None}
    (tmp_path / failed.run_id / "record.json").write_text(json.dumps(text))
    known = set(earlier_runs(tmp_path, frozenset()).values())
    assert known == {record.run_id for record in ended} - {torn.run_id, failed.run_id}


def test_records_name_the_rules_of_their_identity_first(tmp_path):
    (spec,) = make_plan(["adapter=lora"], False, CONF).specs
    from lorta.runner.record_builder import first_record

    text = first_record(spec).to_json(indent=1)
    assert text.startswith('{\n "identity_version": 2,')
    (tmp_path / spec.run_id).mkdir()
    (tmp_path / spec.run_id / "record.json").write_text(text)
    assert earlier_runs(tmp_path, frozenset()) == {}


@pytest.mark.parametrize("suite", sorted((ROOT / "results" / "records").glob("*.jsonl*")), ids=lambda file: file.name)
def test_committed_records_have_one_present_identity_each(suite):
    records = read_export(suite)
    assert len({run_id(record.config) for record in records}) == len(records)
    cells = {record.cell_id: cell_id(record.config) for record in records}
    assert len(set(cells.values())) == len(cells)


def test_former_names_of_keys_are_read_and_the_present_one_is_said(tmp_path, capsys):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    file = conf / "adapter" / "lora.yaml"
    text = file.read_text().replace("param_count: {per_module:", "count: {each:")
    assert "count: {each:" in text
    file.write_text(text + 'refuses: {"r > 1000": "it is too large."}\nsolve: rank\n')
    plan = make_plan(["adapter=lora", "rank=4"], False, conf)
    (now,) = make_plan(["adapter=lora", "rank=4"], False, CONF).specs
    assert not plan.problems
    assert plan.specs[0].signature == now.signature
    for former, present in (("count", "param_count"), ("refuses", "unsupported_if"), ("solve", "budget_param")):
        assert any(f"adapter.{former} is now called adapter.{present}" in note for note in plan.notes)


def test_a_former_key_on_the_command_line_is_read_and_the_present_one_is_said():
    former = make_plan(["task=glue/rte", "data.hold_out=50"], False, CONF)
    present = make_plan(["task=glue/rte", "data.holdout=50"], False, CONF)
    assert former.notes == ("data.hold_out is now called data.holdout",) and not former.problems
    assert former.specs[0].signature == present.specs[0].signature


def test_no_present_key_is_a_former_one():
    for former in FORMER_KEYS.values():
        assert not set(former) & set(former.values())


def test_a_record_read_and_written_again_keeps_its_bytes(tmp_path):
    for record in earlier_store(tmp_path):
        again = RunRecord.from_json(record.to_json(), "again")
        assert again == record
        assert Store(tmp_path).read(record.run_id) == record
