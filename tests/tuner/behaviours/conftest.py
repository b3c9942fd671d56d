"""Every tuner on its backbones. The tests here know nothing else of a tuner than tuners.py."""

import pytest
import torch
from peft import get_peft_model
from tuners import NAMED, TUNERS, Pair

PAIRS = [(name, backbone) for name, tuner in TUNERS.items() for backbone in tuner.backbones]


def known(name, request):
    """A tuner by name; a test that it is known to fail must fail."""
    if sentence := TUNERS[name].cannot.get(request.node.originalname):
        request.node.add_marker(pytest.mark.xfail(reason=sentence, strict=True))
    return TUNERS[name]


@pytest.fixture(params=TUNERS)
def tuner(request):
    return known(request.param, request)


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(request):
    return Pair(known(request.param[0], request), request.param[1])


@pytest.fixture
def encoder(tuner):
    return Pair(tuner, "roberta")


@pytest.fixture
def side_by_side(pair):
    """Logits of two adapters alone, and a model that holds both."""
    alone = {}
    task = None if pair.backbone in ("llama", "gpt2") else {}  # PEFT gives rows a head of their own if it is linear
    for seed, (name, settings) in enumerate(NAMED.items()):
        alone[name] = pair.logits(pair.attach(seed=seed, task=task, **settings))
    torch.manual_seed(0)
    model = get_peft_model(pair.base(), pair.config(task=task, **NAMED["wide"]), adapter_name="wide").eval()
    model.add_adapter("narrow", pair.config(task=task, **NAMED["narrow"]))
    for seed, name in enumerate(NAMED):
        pair.fill(model, name, seed=seed)
    return alone, model.eval()
