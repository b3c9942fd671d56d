"""What a model hub may answer: real huggingface_hub against a server on loopback, an empty cache for each test."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import api

from experiments.rows import read_rows
from lorta.api.task import DataPlan
from lorta.config.places import CONF, ROOT
from lorta.config.settings import DataSettings
from lorta.embedded import tasks
from lorta.models import hub as asking
from lorta.models import tokenizer
from lorta.models.hub_cache import HubFile, weights_sha256
from lorta.models.locate import ModelFiles
from lorta.models.tokenizer import keep_tokenizer, load_tokenizer
from lorta.planning.planner import make_plan
from lorta.runner.record_builder import failure_kind
from tests.models.hub_server import COMMIT, Hub, etag, folder_files

TINY = tasks.FINGERPRINTS.with_name("weights") / "tiny"
MODEL, GLUE = "lab/tiny", "nyu-mll/glue"
GLUE_COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
TRAIN = "rte/train-00000-of-00001.parquet"
WORDS = ["task=glue/rte", "data.source=embedded", "model=custom", f"model.hub_id={MODEL}"]
PINNED = [*WORDS, f"model.revision={COMMIT}"]
FILES = ModelFiles(MODEL, COMMIT, "", {})


class Hasty(SimpleNamespace):
    """The module time for what is tried again after a while: at once."""

    def __init__(self, real) -> None:
        super().__init__(**vars(real) | {"sleep": lambda seconds: None})


def parquet_file() -> bytes:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"sentence1": ["a"], "sentence2": ["b"], "label": [0], "idx": [0]})
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def server():
    hub = Hub({MODEL: folder_files(TINY), f"datasets/{GLUE}": {TRAIN: parquet_file()}})
    hub.commits.add(GLUE_COMMIT)
    yield hub
    hub.close()


@pytest.fixture
def hub(server, tmp_path, monkeypatch):
    """The server without a fault, an empty cache, and short patience."""
    server.heal()
    use(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(asking, "PATIENCE_S", 2.0)
    monkeypatch.setattr(asking, "_silent_until", {})
    monkeypatch.setattr(tokenizer, "_kept", {})
    monkeypatch.setattr("huggingface_hub.utils._http.time", Hasty(time))
    yield server
    huggingface_hub.close_session()


def use(address: str, monkeypatch) -> None:
    """As HF_ENDPOINT, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(api, "endpoint", address)  # of functions such as file_exists
    huggingface_hub.close_session()


def problem(*words: str) -> str:
    """The one sentence of a plan."""
    (said,) = make_plan(words or PINNED, False, CONF).problems
    assert len(said.splitlines()) == 1
    return said


def cached(name: str):
    return HubFile(MODEL, name, COMMIT).cached()


def edit(path) -> None:
    """Change a file of the cache in place, its size as before."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.resolve().write_bytes(content)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (401, "wants a login for lab/tiny (401): check its name, and log in"),
        ("gated", "lab/tiny is gated: accept its terms at http://127.0.0.1:"),
        (403, "forbids lab/tiny (403): ask its owners, or log in"),
        ("no repository", "the hub has no lab/tiny"),
        ("no revision", f"lab/tiny has no revision {COMMIT}: take a commit"),
        ("no file", "lab/tiny has no file config.json at revision"),
        (429, "too many requests from here (429): wait some minutes"),
        (500, "answers with an error of its own (500): try again later"),
        (503, "answers with an error of its own (503): try again later"),
        ("portal", "does not answer as a model hub does, as if a login page"),
    ],
)
def test_what_the_hub_says_is_one_sentence_of_the_plan(hub, fault, said):
    hub.faults["config.json"] = fault
    sentence = problem()
    assert sentence.startswith("model=custom is not in the local cache and ")
    assert said in sentence
    assert "model=custom model.path=FOLDER" in sentence


@pytest.mark.parametrize(("fault", "said"), [("cut", "cannot be downloaded"), ("hang", "does not answer within 0.3 s")])
def test_a_download_that_ends_or_hangs_is_one_sentence(hub, fault, said, monkeypatch):
    monkeypatch.setattr(asking, "PATIENCE_S", 0.3)
    hub.faults["GET /lab/tiny/resolve"] = fault
    assert said in problem()


def test_a_hub_that_hangs_blocks_a_plan_once(hub, monkeypatch):
    """Ten tasks and two models waited one after the other, 240 s and more."""
    monkeypatch.setattr(asking, "PATIENCE_S", 0.5)
    hub.faults["/"] = "hang"
    begun = time.monotonic()
    plan = make_plan(["task=glue", "data.source=hub", *PINNED[2:]], True, CONF)
    assert time.monotonic() - begun < 3.0
    assert all("does not answer within 0.5 s" in sentence for sentence in plan.problems)
    assert len(plan.problems) > 5


def test_an_empty_cache_is_filled_and_serves_without_a_hub(hub, monkeypatch):
    (spec,) = make_plan(PINNED, False, CONF).specs
    assert spec.fingerprints["model"] == f"{MODEL}@{COMMIT}"
    assert len(load_tokenizer(FILES)) > 100
    use("http://127.0.0.1:9", monkeypatch)  # nobody listens there
    assert make_plan(PINNED, False, CONF).problems == ()
    assert len(load_tokenizer(FILES)) > 100


def test_no_connection_is_one_sentence(hub, monkeypatch):
    use("http://127.0.0.1:9", monkeypatch)
    assert "127.0.0.1:9 cannot be reached (" in problem()


def test_a_proxy_is_the_way_to_a_hub_that_cannot_be_reached_directly(hub, monkeypatch):
    """A raw socket to the hub was refused where huggingface_hub works."""
    monkeypatch.setenv("HTTP_PROXY", hub.address)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    use("http://hub.invalid", monkeypatch)
    assert make_plan(PINNED, False, CONF).problems == ()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{constants.HF_HUB_CACHE}-2")
    huggingface_hub.close_session()
    assert "hub.invalid cannot be reached through the proxy" in problem()


def test_a_command_takes_the_address_of_its_environment(hub, tmp_path):
    """HF_ENDPOINT=http://HOST was looked for at port 443."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lorta", "plan", *PINNED]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"HEAD /{MODEL}/resolve/{COMMIT}/config.json" in hub.requests


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123456"])
def test_a_branch_or_tag_is_no_commit(hub, revision):
    sentence = problem(*WORDS, f"model.revision={revision}")
    assert f"model.revision={revision} is a branch or a tag of {MODEL}, which may move" in sentence
    assert sentence.endswith(f"set model.revision=COMMIT, its 40 digits ({COMMIT})")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["task=glue/rte", "data.source=hub", "model=tiny", "task.revision=main"], "task.revision=main"),
        (["task=instruct", "data.source=hub", "model=tiny_llama", "task.source.revision=main"], "task.source.revision"),
    ],
)
def test_a_data_set_is_of_a_commit_too(hub, words, key):
    hub.faults["/"] = 500
    assert f"{key}" in problem(*words)
    assert "is a branch or a tag of" in problem(*words)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_the_hub_fails_to_send_is_never_made_of_the_rest(hub, name):
    """transformers takes an error for a file that is not there: the run trained on an empty tokenizer, and kept it."""
    hub.faults[name] = 500
    for load in (load_tokenizer, keep_tokenizer):
        with pytest.raises(ValueError, match=rf"{MODEL}: its files are incomplete: .* error of its own \(500\)") as met:
            load(FILES)
        assert failure_kind(met.value, "setup") == "infra"  # which `retry` may find mended
    assert tokenizer._kept == {}
    hub.heal()
    assert len(load_tokenizer(FILES)) > 100


def test_a_login_page_in_place_of_a_tokenizer_is_a_sentence(hub):
    hub.faults["tokenizer.json"] = "portal"
    with pytest.raises(ValueError, match="does not answer as a model hub does, as if a login page"):
        load_tokenizer(FILES)


def test_a_list_of_files_that_fails_is_no_empty_list(hub):
    hub.faults["/tree/"] = 500
    make_plan(PINNED, False, CONF)  # so that the cache has a folder of this commit
    with pytest.raises(ValueError, match="its files are incomplete"):
        load_tokenizer(FILES)


def test_a_repository_of_pickled_weights_alone_is_a_sentence_of_the_plan(hub):
    """Folders were refused, repositories were not."""
    hub.faults["model.safetensors"] = "no file"
    assert f"{MODEL} at {COMMIT} has no *.safetensors (pickled weights are never loaded)" in problem()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_an_edited_file_of_the_cache_is_refused(hub, name):
    load_tokenizer(FILES)
    edit(cached(name))
    with pytest.raises(ValueError, match=rf"{name}: it is not what the hub sent \(its hash is"):
        load_tokenizer(FILES)
    if name == "config.json":
        assert "it was edited or is damaged" in problem()


def test_weights_are_hashed_and_an_edited_cache_is_refused(hub):
    path = huggingface_hub.hf_hub_download(MODEL, "model.safetensors", revision=COMMIT)
    assert weights_sha256(MODEL, COMMIT) == etag("model.safetensors", (TINY / "model.safetensors").read_bytes())
    edit(cached("model.safetensors"))
    with pytest.raises(ValueError, match=r"model\.safetensors: it is not what the hub sent"):
        weights_sha256(MODEL, COMMIT)
    Path(path).unlink()
    Path(path).write_bytes(b"another file in its place")
    with pytest.raises(ValueError, match="it is not what the hub sent"):
        weights_sha256(MODEL, COMMIT)


def test_rows_of_the_hub_are_what_it_sent(hub):
    plan = DataPlan("hub", GLUE_COMMIT, {})
    data = DataSettings(source="hub", root=None, max_train_samples=None, max_eval_samples=None, max_length=32)
    assert len(read_rows(plan, "glue/rte", "train", data, GLUE)) == 1
    edit(HubFile(GLUE, TRAIN, GLUE_COMMIT, "dataset").cached())
    with pytest.raises(ValueError, match="it is not what the hub sent"):
        read_rows(plan, "glue/rte", "train", data, GLUE)


def test_a_run_records_the_hash_of_its_weights_and_asks_for_its_commit_alone(hub, tmp_path):
    """PEFT's save asked the hub for the branch main, 10 s where it hangs."""
    from lorta.runner.execute import execute

    places = [f"runtime.{name}={tmp_path / name}" for name in ("runs", "cache", "results")]
    words = ["adapter=lora", *PINNED, *places, "trainer=smoke", "trainer.max_steps=2", "data.max_eval_samples=8"]
    (spec,) = make_plan([*words, "data.max_train_samples=32"], False, CONF).specs
    record = execute(spec)
    assert record.status == "success", record.failure
    assert record.model.weights_sha256 == etag("model.safetensors", (TINY / "model.safetensors").read_bytes())
    assert "model.weights_sha256" not in record.reasons
    assert [request for request in hub.requests if "main" in request] == []


def test_a_cache_without_a_list_of_files_serves_offline_when_it_has_a_tokenizer(hub, monkeypatch):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        huggingface_hub.hf_hub_download(MODEL, name, revision=COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert len(load_tokenizer(FILES)) > 100
    cached("tokenizer.json").unlink()
    with pytest.raises(ValueError, match=f"{MODEL}: its files are incomplete"):
        load_tokenizer(FILES)
