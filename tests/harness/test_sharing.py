"""What workers share: frozen imports, and base weights that are pages of the model's file."""

import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import RobertaForSequenceClassification

from lorta.harness.backbone import ModelFiles, load_classifier
from tests.contract.backbones import backbone

TOKENIZER = Path(__file__).parents[2] / "lorta" / "embedded" / "weights" / "tiny"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_base_weights_are_pages_of_their_file_and_no_copies(tmp_path):
    model = backbone("roberta").model
    model.save_pretrained(tmp_path)
    for file in TOKENIZER.glob("tokenizer*.json"):
        shutil.copy(file, tmp_path)
    files = ModelFiles(str(tmp_path), None, "", model.config.to_dict())
    loaded = load_classifier(files, 2, "fp32").model
    assert isinstance(loaded, RobertaForSequenceClassification)
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    copies = [
        name
        for name, weight in loaded.named_parameters()
        if not any(start <= weight.data_ptr() < end for start, end in ranges)
    ]
    assert copies == []


def test_the_server_of_workers_freezes_what_it_imported():
    code = "import gc, lorta.harness.warm; print(gc.get_freeze_count())"
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert int(done.stdout) > 1000
    assert gc.get_freeze_count() == 0
