"""Another release of PEFT is taken where it has what the tuners rest on, and refused with the reason where not."""

import inspect
import warnings

import peft
import pytest
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from lorta.peft_extension.compatibility import PARAMETERS, TESTED, check_peft, differences
from lorta.peft_extension.registry import AdditiveTunerLayer, ExternalTuner
from lorta.peft_extension.shared_factors import SharedFactorLinear, SharedFactorModel
from lorta.tuner import LortaLinear, LortaModel


@pytest.mark.parametrize("release", TESTED)
def test_a_tested_release_is_taken_silently(release, monkeypatch):
    monkeypatch.setattr(peft, "__version__", release)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_peft()


def test_the_installed_release_is_tested_and_has_all_that_is_needed():
    assert peft.__version__ in TESTED
    assert differences() == []


def test_an_unknown_release_with_all_that_is_needed_is_taken_with_a_warning(monkeypatch):
    monkeypatch.setattr(peft, "__version__", "0.99.0")
    with pytest.warns(UserWarning, match=r"not with 0\.99\.0.*pip install 'peft>=0\.21,<0\.22'"):
        check_peft()


def test_an_unknown_release_that_lacks_something_is_refused_with_what_and_the_remedy(monkeypatch):
    monkeypatch.setattr(peft, "__version__", "0.99.0")
    monkeypatch.delattr(BaseTunerLayer, "_cast_input_dtype")
    monkeypatch.setattr(BaseTuner, "_prepare_model", lambda self, model: None)
    with pytest.raises(ImportError) as refusal:
        check_peft()
    sentence = str(refusal.value)
    assert "BaseTunerLayer._cast_input_dtype does not exist" in sentence
    assert "BaseTuner._prepare_model takes self, model instead of self, peft_config, model" in sentence
    assert "peft 0.99.0" in sentence and "pip install 'peft>=0.21,<0.22'" in sentence


@pytest.mark.parametrize(
    ("owner", "classes"),
    [
        (BaseTuner, (ExternalTuner, SharedFactorModel, LortaModel)),
        (BaseTunerLayer, (AdditiveTunerLayer, SharedFactorLinear, LortaLinear)),
    ],
)
def test_every_method_of_peft_that_is_overridden_is_compared(owner, classes):
    overridden = {
        name
        for one in classes
        for name in vars(one)
        if inspect.isroutine(getattr(owner, name, None)) and not hasattr(nn.Module, name) and not name.startswith("__")
    }
    assert overridden == PARAMETERS[f"peft.tuners.tuners_utils:{owner.__name__}"].keys()
