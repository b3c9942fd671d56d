"""What pip installs from the wheel works outside a checkout: the tuner alone, and with [bench] the harness."""

import json
import re
import subprocess
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.packaging.environments import call, make

ROOT = Path(__file__).parents[2]
WORDS = ["-m", "adapter=lora,lorta", "rank=4,8", "task=glue/rte"]
# A model as large as the README's, but for its vocabulary and its feed-forward blocks, which LoRTA leaves alone
BEFORE = """
from transformers import RobertaConfig, RobertaForSequenceClassification
model = RobertaForSequenceClassification(RobertaConfig(vocab_size=100, intermediate_size=8))
"""
AFTER = """
import lorta, torch
assert lorta.LortaConfig is LortaConfig
model(torch.arange(8)[None], labels=torch.tensor([0])).loss.backward()
ours = {name: weight for name, weight in model.named_parameters() if "lorta_" in name}
assert ours and all(weight.grad is not None for weight in ours.values())
print("adapter parameters", sum(weight.numel() for weight in ours.values()))
"""


@pytest.fixture(scope="module")
def base(wheel, tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("base") / "venv", wheel)


@pytest.fixture(scope="module")
def bench(wheel, tmp_path_factory) -> Path:
    """An environment inside somebody's repository, as a project's own usually is."""
    repository = tmp_path_factory.mktemp("bench")
    subprocess.run(["git", "init", "--quiet", repository], check=True)
    who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    commit = ["commit", "--quiet", "--allow-empty", "--message=Begin"]
    subprocess.run(["git", "-C", repository, *who, *commit], check=True)
    return make(repository / "venv", wheel, "bench")


def program(site: Path, name: str) -> Path:
    return site.parents[2] / "bin" / name


def files_of(site: Path) -> set[Path]:
    return {file for file in site.rglob("*") if "__pycache__" not in file.parts}


def test_a_wheel_puts_nothing_but_lorta_beside_other_packages(wheel):
    files = zipfile.ZipFile(wheel).namelist()
    assert {file.split("/")[0].split("-")[0] for file in files} == {"lorta"}
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ours = re.compile(r"(baselines|conf|experiments|lorta|results/published)/.+|requirements\.lock")
    wanted = {
        file if file.startswith("lorta/") else f"lorta/_shipped/{file}"
        for file in listed.split("\0")
        if ours.fullmatch(file)
    }
    assert wanted - set(files) == set()
    assert [file for file in files if file.endswith((".pyc", ".pyo"))] == []


def test_an_sdist_has_what_a_run_needs_and_no_results_of_ours(sdist):
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"run.py", "conf/config.yaml", "conf/hydra/launcher/slurm.yaml", "experiments/glue.py"} <= files
    assert {"results/published/lorta.yaml", "lorta/py.typed", "requirements.lock", "setup.py"} <= files
    assert not any(file.startswith(("results/records", "tests/", "lorta/_shipped")) for file in files)


def test_the_readme_example_runs_with_the_base_install(base, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = next(block for block in blocks if "LortaConfig(" in block)
    assert "model = " in example and "3,440" in example
    (tmp_path / "example.py").write_text(BEFORE + example + AFTER)
    assert "adapter parameters 3440\n" in call([program(base, "python"), "example.py"], tmp_path)


def test_the_base_install_is_torch_peft_and_jaxtyping(base, tmp_path):
    (lorta,) = metadata.distributions(name="lorta", path=[str(base)])
    plain = [line for line in lorta.requires or () if "extra ==" not in line]
    assert sorted(re.match(r"\w+", line)[0] for line in plain) == ["jaxtyping", "peft", "torch"]
    code = (
        "import sys, lorta; print(lorta.__version__, lorta.__file__, 'torch' in sys.modules)\n"
        "from importlib.util import find_spec as find; print([name for name in ('hydra', 'baselines') if find(name)])"
    )
    said = call([program(base, "python"), "-c", code], tmp_path).splitlines()
    assert said == [f"{lorta.version} {base}/lorta/__init__.py False", "[]"]
    assert call([program(base, "lorta"), "--version"], tmp_path) == f"lorta {lorta.version}\n"


@pytest.mark.parametrize("command", [["plan", *WORDS], ["run", *WORDS], ["table"], ["recipes"]])
def test_the_harness_without_bench_is_one_sentence(base, tmp_path, command):
    said = call([program(base, "lorta"), *command], tmp_path, status=2)
    assert said.count("\n") == 1 and f"lorta {command[0]}: " in said and "hydra-core" in said
    assert "pip install 'lorta[bench]'" in said


def test_own_methods_of_any_folder_are_methods_of_an_installed_lorta(bench, tmp_path):
    (tmp_path / "mine" / "adapter").mkdir(parents=True)
    text = (ROOT / "conf" / "adapter" / "lora.yaml").read_text().replace("name: lora\n", "name: my_lora\n")
    (tmp_path / "mine" / "adapter" / "my_lora.yaml").write_text(text)
    said = call([program(bench, "lorta"), "plan", "adapter=my_lora,lora", "--conf", "mine", "rank=2"], tmp_path)
    assert "my_lora" in said and "2 runs: 0 done, 2 missing" in said


def test_plan_run_table_and_report_of_an_installed_lorta(bench, tmp_path):
    lorta, before = program(bench, "lorta"), files_of(bench)
    assert "4 runs to do" in call([lorta, "plan", *WORDS], tmp_path)
    assert "4 runs: 4 to do, 0 done" in call([lorta, "run", *WORDS], tmp_path)
    assert "4 runs: 0 to do, 4 done" in call([lorta, "run", *WORDS], tmp_path)
    assert "lorta r=8" in call([lorta, "table", "--runs", "runs"], tmp_path)
    assert "RoBERTa" in call([lorta, "table", "paper=lorta", "--runs", "runs"], tmp_path)
    assert "4 runs" in call([lorta, "report", "--runs", "runs", "--to", "page.html"], tmp_path)
    assert files_of(bench) == before
    assert {"runs", "cache", "results", "page.html"} == {file.name for file in tmp_path.iterdir()}
    records = [json.loads(file.read_text()) for file in tmp_path.glob("runs/*/record.json")]
    assert [record["code"]["git_sha"] for record in records] == [None] * 4
    assert all(record["reasons"]["code.git_sha"].startswith("no git") for record in records)
    assert all(record["environment"]["lock_sha256"] for record in records)


def test_recipes_and_settings_of_an_installed_lorta(bench, tmp_path):
    lorta = program(bench, "lorta")
    assert "lorta/glue_base" in call([lorta, "recipes"], tmp_path)
    assert "_target_: experiments" in call([lorta, "run", "--cfg", "job"], tmp_path)


def test_a_new_process_unpickles_what_baselines_and_experiments_define(bench, tmp_path):
    code = (
        "import pickle, sys; from lorta.planning.planner import make_plan; from lorta.config.places import CONF\n"
        "from lorta.config.instantiate import build\n"
        "(spec,) = make_plan(['adapter=quanta', 'task=glue/rte'], False, CONF).specs\n"
        "pickle.dump((spec, build(spec.settings.task)), open('spec.pickle', 'wb'))"
    )
    call([program(bench, "python"), "-c", code], tmp_path)
    code = (
        "import pickle, sys; print(type(pickle.load(open('spec.pickle', 'rb'))[1]).__module__)\n"
        "import baselines; print(baselines.__file__)"
    )
    module, file = call([program(bench, "python"), "-c", code], tmp_path).split()
    assert module == "experiments.glue" and Path(file) == bench / "lorta" / "_shipped" / "baselines" / "__init__.py"
