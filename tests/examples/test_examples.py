"""Every file of examples/ does what its first lines say, offline, in a process of its own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("baselines", "conf", "examples", "experiments", "lorta", "run.py")
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHON": sys.executable}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, because the examples add files to conf/."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def output(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    match = re.search(pattern, text)
    assert match, text
    return float(match.group(1))


def test_fine_tuning_with_lorta_learns_the_task(checkout):
    text = output(checkout, sys.executable, "examples/finetune_lorta.py")
    assert number(r"epoch 2: accuracy (0\.\d+)", text) > 0.85  # the most frequent class has 0.5
    assert "trainable params: 10,562" in text  # 1,056 of LoRTA at rank 8 and 9,506 of the head


def test_an_exported_lora_gives_the_same_logits(checkout, tmp_path):
    text = output(checkout, sys.executable, "examples/export_lora.py", str(tmp_path))
    assert "LORA of rank 4" in text
    assert number(r"difference of the logits: (\S+)", text) < 1e-5
    assert {file.name for file in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


def test_one_yaml_file_in_any_folder_is_a_method(checkout, tmp_path):
    text = output(checkout, "bash", "examples/own_adapter.sh", str(tmp_path))
    assert not (checkout / "conf" / "adapter" / "own_adapter.yaml").exists()
    parameters = 2 * 4 * 4 * 2 * 96  # rank, layers, matrices, two sides of 96
    assert re.search(rf"own_adapter r=2 +{parameters:,} ", text), text


def test_one_yaml_file_and_two_data_files_are_a_task(checkout, tmp_path):
    text = output(checkout, "bash", "examples/own_task.sh", str(tmp_path))
    assert "glue/vehicles seed 0: accuracy" in text
    rows = (tmp_path / "glue" / "vehicles" / "train.jsonl").read_text()
    assert 0.1 < rows.count('"label": 1') / len(rows.splitlines()) < 0.9


def test_the_adapter_of_a_run_scores_as_recorded_in_plain_peft(checkout):
    output(checkout, sys.executable, "run.py", "adapter=lorta", "task=glue/rte", "trainer=smoke", "runtime.runs=own")
    (record,) = checkout.glob("own/*/record.json")
    text = output(checkout, sys.executable, "examples/load_run.py", str(record.parent))
    assert number(r"accuracy (0\.\d+)", text) == number(r"recorded: (0\.\d+)", text)


def test_the_readme_of_the_examples_names_each_file():
    named = set(re.findall(r"\]\((\w+\.\w+)\)", (ROOT / "examples" / "README.md").read_text()))
    assert named == {file.name for file in (ROOT / "examples").iterdir() if file.is_file()} - {"README.md"}
