"""Bad input costs one message and no work: exit status 2, in under two seconds, before torch, with nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lorta.cli.run import main
from tests.processor_time import seconds_of_children

ROOT = Path(__file__).parents[2]
ROWS = [{"sentence1": "a", "sentence2": "b", "label": index % 2, "idx": index} for index in range(4)]

# command line, and what its message must contain
BAD: list[tuple[str, tuple[str, ...]]] = [
    ("adapter=lorat", ("adapter=lorat", "did you mean", "lorta")),
    ("adapter=", ("adapter=",)),
    ("adapter=LORTA", ("adapter=LORTA", "lorta")),
    ("-m adapter=lora,verra", ("adapter=verra", "vera")),
    ("-m adapter=glob(zzz*)", ("adapter=glob(zzz*)", "matches nothing")),
    ("adapter=lora,vera", ("adapter=lora,vera", "-m")),
    ("rank=0", ("rank=0", "greater than or equal to 1")),
    ("rank=-3", ("rank=-3",)),
    ("rank=abc", ("rank='abc'", "integer")),
    ("rank=4.5", ("rank=4.5", "integer")),
    ("rank=null", ("rank=None", "integer")),
    ("rank=true", ("rank=True", "integer")),
    ("rank=4,8", ("rank=4,8", "-m")),
    ("-m rank=4,0,x", ("rank=0", "rank='x'")),
    ("rank=", ("rank=",)),
    ("seed=-1", ("seed=-1",)),
    ("seed=one", ("seed='one'",)),
    ("seed=99999999999", ("seed=99999999999",)),
    ("+rnak=8", ("rnak", "did you mean rank")),
    ("rnak=8", ("rnak", "did you mean rank")),
    ("++rnak=8", ("rnak", "did you mean rank")),
    ("~rank", ("~rank", "cannot be removed")),
    ("rank=4 rank=8", ("rank is given twice",)),
    ("task=glue/mprc", ("task=glue/mprc", "glue/mrpc")),
    ("task=gleu", ("task=gleu", "glue")),
    ("task=glue/mnli", ("glue/mnli", "no embedded data")),
    ("data.root=/nowhere", ("data.root=/nowhere", "no such folder")),
    ("data.root={tmp}/empty task=glue/rte", ("task=glue/rte", "train.jsonl")),
    ("data.root={tmp}/missing_column task=glue/rte", ("train.jsonl, line 1", "sentence2 is missing")),
    ("data.root={tmp}/corrupt task=glue/rte", ("train.jsonl, line 3", "not JSON")),
    ("data.root={tmp}/bad_label task=glue/rte", ("validation.jsonl, line 2", "label must be")),
    ("data.root={tmp}/not_gzip task=glue/rte", ("train.jsonl.gz", "cannot be read")),
    ("data.root={tmp}/no_rows task=glue/rte", ("train.jsonl", "no rows")),
    ("data.root={tmp}/array task=glue/rte", ("line 1", "JSON object")),
    ("data.root={tmp}/not_utf8 task=glue/rte", ("train.jsonl", "UTF-8")),
    ("data.rooot=x", ("data.rooot", "did you mean data.root")),
    ("data.source=internet", ("data.source='internet'",)),
    ("data.source=local", ("data.source=local", "data.root")),
    ("data.source=hub data.root={tmp}", ("has no effect",)),
    ("data.max_train_samples=0", ("data.max_train_samples=0",)),
    ("data.max_length=two", ("data.max_length='two'",)),
    ("model=robert_base", ("model=robert_base", "roberta_base")),
    ("model=roberta_base", ("model=roberta_base", "not in the local cache")),
    ("model=custom", ("model.path=FOLDER",)),
    ("model=custom model.path={tmp}/no_model", ("no_model",)),
    ("model=custom model.path={tmp}/empty", ("config.json",)),
    ("model=custom model.path={tmp}/pickled", ("safetensors",)),
    ("model=custom model.path={tmp}/strange", ("model_type 'strange'", "ARCHITECTURES")),
    ("model=custom model.path={tmp}/mute", ("mute has no tokenizer", "tokenizer.save_pretrained")),
    ("model=custom model.path={tmp}/packed", ("quantised (gptq)", "use the original weights")),
    ("trainer=fast", ("trainer=fast", "standard")),
    ("trainer.learning_rate=-1", ("trainer.learning_rate=-1",)),
    ("trainer.learning_rate=nan", ("trainer.learning_rate=nan",)),
    ("trainer.learning_rat=1", ("trainer.learning_rat", "did you mean trainer.learning_rate")),
    ("trainer.num_train_epochs=0", ("trainer.num_train_epochs=0",)),
    ("trainer.selection=median", ("trainer.selection='median'",)),
    ("trainer.lr_scheduler_type=step", ("trainer.lr_scheduler_type='step'",)),
    ("trainer.warmup_ratio=1.5", ("trainer.warmup_ratio=1.5",)),
    ("adapter=lora adapter.config.alpha=3", ("adapter.config.alpha", "adapter=lora", "lora_alpha")),
    ("adapter.projections=[q,w]", ("projections",)),
    ("adapter=boft adapter.config.boft_block_size=1", ("adapter=boft", "no divisor of 24 is at most 0.5")),
    ("tracking=tensorboard", ("tracking=tensorboard", "wandb_offline")),
    ("experiment=nothing", ("experiment=nothing",)),
    ("hydra/launcher=joblib", ("hydra/launcher=joblib",)),
    ("hydra.run.dir=/x", ("hydra.run.dir",)),
    ("hydra/launcher=slrum", ("hydra/launcher=slrum", "did you mean slurm")),
    ("-m hydra/launcher=slurm,local", ("hydra/launcher=slurm,local", "one value")),
    ("hydra.launcher.partition=gpu", ("hydra.launcher.partition", "hydra/launcher=local has no settings")),
    ("hydra/launcher=slurm hydra.launcher.partiton=gpu", ("hydra.launcher.partiton", "did you mean partition")),
    ("hydra/launcher=slurm hydra.launcher.timeout_min=0", ("hydra.launcher.timeout_min=0", "greater than")),
    ("hydra/launcher=slurm hydra.launcher.timeout_min=3", ("signal_delay_s=120", "below timeout_min")),
    ("hydra/launcher=slurm runtime.timeout_s=60.0", ("runtime.timeout_s", "hydra.launcher.timeout_min")),
    ("-m adapter=lora,lorta compare={{method:lorta,with:lora,margin:0}}", ("compare", "points above 0", "got 0")),
    ("-m adapter=lora,lorta compare={{method:lorta,with:lora,margin:1%}}", ("points above 0", "got '1%'")),
    ("-m adapter=lora,lorta compare={{method:lorta,with:lorta}}", ("two different methods", "lorta twice")),
    ("-m adapter=lora,lorta compare={{method:lorta,with:vera}}", ("vera: the sweep has no such method", "lora r=8")),
    ("-m adapter=lora,lorta compare={{method:lorta,with:lora,task:glue/rte}}", ("task=glue/rte", "glue/sst2")),
    ("-m adapter=lora,lorta compare={{method:lorta}}", ("needs method and with",)),
    ("trainer.max_steps=-7", ("trainer.max_steps=-7", "1 or more, or -1 for whole epochs")),
    ("trainer.max_steps=0", ("trainer.max_steps=0", "1 or more")),
    ("trainer.max_steps=9223372036854775808", ("trainer.max_steps", "less than 2147483648")),
    ("adapter=lora adapter.config.lora_alpha=nan", ("adapter.config.lora_alpha: NaN", "a finite number")),
    ("adapter=lora adapter.config.r=-3", ("adapter=lora: config: r=-3", "a whole number, 1 or more")),
    ("adapter=lora adapter.config.r=2.5", ("adapter=lora: config: r=2.5", "a whole number")),
    ("adapter=lora adapter.config.r=8.0", ("adapter=lora: config: r=8.0", "a whole number")),
    ("adapter=adalora adapter.config.target_r=2.5", ("adalora: config: target_r=2.5", "a whole number, 0 or more")),
    ("adapter=lora adapter.config.r=0", ("adapter=lora: config: r=0", "1 or more")),
    ("adapter=lotr adapter.config.r=0", ("adapter=lotr: config: r=0", "1 or more")),
    ("adapter=lora adapter.config.lora_dropout=2", ("adapter=lora: config: lora_dropout=2", "at least 0 and below 1")),
    ("adapter=lora adapter.config.lora_dropout=1.0", ("lora_dropout=1.0", "a probability")),
    ("adapter=lorta adapter.config.dropout=-0.1", ("adapter=lorta: config: dropout=-0.1", "a probability")),
    ("adapter=adalora adapter.config.lora_dropout=half", ("lora_dropout=half: a probability",)),
    ("adapter=vera adapter.config.vera_dropout=inf", ("vera_dropout: NaN and infinity",)),
    ("adapter=lora adapter.config.lora_alpha=0", ("adapter=lora: config: lora_alpha=0", "another number")),
    ("adapter=prompt_tuning adapter.config.num_virtual_tokens=-1", ("adapter=prompt_tuning: its settings give -96",)),
    ("data.columns=[]", ("data.columns=[]", "at least 1 item")),
    ("task=instruct task.generations=-1", ("task=instruct: task.generations=-1", "0 or more")),
    ("task=instruct task.max_new_tokens=0", ("task=instruct: task.max_new_tokens=0", "1 or more")),
    ("task=instruct task.source.held_out=-1.0", ("task.source.held_out=-1.0", "above 0")),
    ("adapter=lora adapter.projections=[]", ("adapter=lora: projections=[]", "name some, such as [q,v]")),
    ("adapter=lorta adapter.projections=[]", ("adapter=lorta: projections=[]", "name some")),
    ("adapter=adalora adapter.projections=[]", ("adapter=adalora: projections=[]", "name some")),
    ("adapter=lora adapter.projections=[q,q]", ("adapter=lora: projections=['q', 'q']", "q is named twice")),
    ("trainer.num_train_epochs=1e30", ("trainer.num_train_epochs=1e+30", "1,000,000 at most")),
    ("trainer.num_train_epochs=inf", ("trainer.num_train_epochs=inf", "1,000,000 at most")),
    ("trainer.num_train_epochs=nan", ("trainer.num_train_epochs=nan", "above 0")),
    ("trainer.num_train_epochs=-1.0", ("trainer.num_train_epochs=-1.0", "above 0")),
    ("trainer.cpu_threads=100000", ("trainer.cpu_threads=100000", "1,024 at most")),
    ("trainer.cpu_threads=0", ("trainer.cpu_threads=0", "1 or more")),
    ("trainer.max_grad_norm=inf", ("trainer.max_grad_norm=inf", "finite")),
    ("runtime.timeout_s=nan", ("runtime.timeout_s=nan",)),
    ("runtime.checkpoint_s=inf", ("runtime.checkpoint_s=inf", "finite")),
    ("rank=10000000000000000000000", ("rank=10000000000000000000000", "2147483647")),
    ("data.max_length=9223372036854775808", ("data.max_length", "2147483647")),
    ("trainer.per_device_train_batch_size=99999999999", ("per_device_train_batch_size", "2147483647")),
    ("-m adapter=lora,lorta seeds=auto", ("seeds=auto", "state one")),
    ("-m adapter=lora,lorta seeds=auto seeds.least=1 compare=best", ("seeds.least=1", "2 <= least")),
    ("-m adapter=lora,lorta seeds=auto compare=best init_seed=1,2", ("seeds=auto and init_seed", "leave out")),
    ("-m adapter=lora,lorta seeds=auto compare=best order_seed=0", ("seeds=auto and order_seed", "no table")),
    ("compare=best", ("compare", "two methods or more")),
    ("runtime.workers=-1", ("runtime.workers",)),
    ("runtime.name=../x", ("runtime.name",)),
    ("rank", ("rank",)),
    ("--rank=4", ("--rank=4", "no such flag")),
    ("rank=[4", ("rank=[4",)),
    (
        "adapter=lorat rank=0 +rnak=8 task=glue/mprc data.root=/nowhere",
        ("4 problems", "lorat", "rank=0", "rnak", "mprc"),
    ),
]


def write_rows(folder: Path, split: str, lines: list[str]) -> None:
    target = folder / "glue" / "rte" / f"{split}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """Every kind of broken data and model folder."""
    root = tmp_path_factory.mktemp("broken")
    good = [json.dumps(row) for row in ROWS]
    cases = {
        "missing_column": ([json.dumps({"sentence1": "a", "label": 0})], good),
        "corrupt": ([*good[:2], good[2][:-5], good[3]], good),
        "bad_label": (good, [good[0], json.dumps(ROWS[1] | {"label": 7})]),
        "no_rows": ([""], good),
        "array": (["[1, 2]"], good),
        "not_gzip": (None, good),
        "not_utf8": (None, good),
    }
    for name, (train, validation) in cases.items():
        write_rows(root / name, "validation", validation)
        if train is not None:
            write_rows(root / name, "train", train)
    (root / "not_gzip/glue/rte/train.jsonl.gz").write_bytes(b"not an archive")
    (root / "not_utf8/glue/rte/train.jsonl").write_bytes(b'{"sentence1": "\xff\xfe"}\n')
    for name in ("empty", "pickled", "strange", "mute", "packed"):
        (root / name).mkdir()
    (root / "pickled/config.json").write_text('{"model_type": "roberta"}')
    (root / "pickled/pytorch_model.bin").write_bytes(b"")
    (root / "strange/config.json").write_text('{"model_type": "strange"}')
    for name in ("strange", "mute", "packed"):
        (root / name / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # no tensor
    for name in ("strange", "packed"):
        (root / name / "tokenizer.json").write_text("{}")
    (root / "mute/config.json").write_text('{"model_type": "gpt2"}')
    (root / "mute/vocab.json").write_text("{}")  # without its merges it is no tokenizer
    (root / "packed/config.json").write_text('{"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}')
    return root


@pytest.mark.parametrize(("line", "expected"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_is_refused_with_a_sentence(line, expected, files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.format(tmp=files).split()) == 2
    message = capsys.readouterr().err
    assert [part for part in expected if part not in message] == [], message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_refusing_takes_under_two_seconds_without_torch(files, tmp_path):
    script = (
        "import sys, time\nfrom lorta.cli.run import main\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    begun = time.process_time()\n    status = main(line.split())\n"
        "    print(status, f'{time.process_time() - begun:.3f}', 'torch' in sys.modules, line)\n"
    )
    lines = "\n".join(line.format(tmp=files) for line, _ in BAD)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], input=lines, text=True, capture_output=True, cwd=tmp_path, env=environment
    )
    results = [line.split(maxsplit=3) for line in done.stdout.splitlines()]
    assert len(results) == len(BAD), done.stderr
    assert [row for row in results if row[0] != "2" or float(row[1]) >= 2.0 or row[2] != "False"] == []


@pytest.mark.parametrize("line", ["adapter=lorat", "rank=0", "+rnak=8", "data.root=/nowhere"])
def test_the_whole_process_ends_within_two_seconds(line, tmp_path):
    begun = seconds_of_children()
    done = subprocess.run([sys.executable, ROOT / "run.py", line], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert seconds_of_children() - begun < 2.0
    assert "nothing was run" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_bad_lines_is_long_enough():
    assert len(BAD) >= 40
