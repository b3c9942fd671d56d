import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from experiments.metrics import GLUE_METRICS, metrics_of, score
from lorta.runner.execute import execute
from tests.faults.sweeps import plan

ROOT = Path(__file__).parents[2]
labels = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
grades = st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 5)), min_size=1, max_size=40)


def columns(pairs):
    return [first for first, _ in pairs], [second for _, second in pairs]


@settings(deadline=None, max_examples=25)
@given(labels)
def test_class_metrics_equal_scikit_learn(pairs):
    predictions, references = columns(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of one class; the number is what is compared
        expected = {
            "accuracy": metrics.accuracy_score(references, predictions),
            "f1": metrics.f1_score(references, predictions),
            "matthews_correlation": metrics.matthews_corrcoef(references, predictions),
        }
    for task in ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte"):
        found = score(task, predictions, references)
        assert {name: found[name].value for name in found} == {name: expected[name] for name in GLUE_METRICS[task]}
        assert {found[name].n for name in found} == {len(pairs)}


@settings(deadline=None, max_examples=25)
@given(grades)
def test_correlations_equal_scipy_where_it_defines_them(pairs):
    predictions, references = columns(pairs)
    found = score("stsb", predictions, references)
    if len(set(predictions)) == 1 or len(set(references)) == 1:
        assert all(item.value is None and item.reason for item in found.values())
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy warns of nearly constant input
        expected = {
            "pearson": stats.pearsonr(predictions, references)[0],
            "spearmanr": stats.spearmanr(predictions, references)[0],
        }
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, nan_ok=False) if math.isfinite(value) else found[name].reason


def test_all_classes_of_mnli_count():
    assert score("mnli", [0, 1, 2, 2], [0, 1, 2, 0])["accuracy"].value == 0.75


def test_one_predicted_class_scores_zero_not_a_crash():
    assert score("cola", [1, 1, 1], [0, 1, 1])["matthews_correlation"].value == 0.0
    assert score("mrpc", [0, 0, 0], [0, 1, 1])["f1"].value == 0.0


@pytest.mark.parametrize(
    ("predictions", "references", "reason"),
    [
        ([2.0, 2.0, 2.0], [0.0, 1.0, 5.0], "all predictions are equal"),
        ([0.0, 1.0, 5.0], [2.0, 2.0, 2.0], "all references are equal"),
        ([1.0], [1.0], "at least two rows"),
        ([], [], "no rows were scored"),
        ([1.0, math.nan, 2.0], [0.0, 1.0, 5.0], "1 of 3 predictions are NaN or infinite"),
        ([1.0, math.inf, 2.0], [0.0, 1.0, 5.0], "1 of 3 predictions are NaN or infinite"),
    ],
)
def test_undefined_correlation_is_none_with_its_reason(predictions, references, reason):
    for item in score("stsb", predictions, references).values():
        assert item.value is None
        assert reason in (item.reason or "")


@pytest.mark.parametrize("task", GLUE_METRICS)
def test_no_rows_have_no_score_in_any_task(task):
    assert {item.reason for item in score(task, [], []).values()} == {"no rows were scored"}


def test_numpy_predictions_are_scored_in_full_precision():
    values = np.array([1.0, 1.0 + 1e-12, 1.0 - 1e-12])
    assert score("stsb", values, np.array([1.0, 2.0, 0.0]))["spearmanr"].value == pytest.approx(1.0)


def test_rows_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="rte: 1 predictions cannot be scored with 2 references"):
        score("rte", [0], [0, 1])


def test_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'mprc'; known: cola, sst2, mrpc"):
        score("mprc", [0], [0])


@pytest.mark.parametrize(
    ("task", "primary", "labels", "asked", "expected"),
    [
        ("glue/mrpc", "accuracy", 2, (), ("accuracy", "f1")),
        ("mine/mrpc", "f1", 2, (), ("accuracy", "f1")),
        ("mine/nli3", "accuracy", 3, (), ("accuracy",)),
        ("mine/spam", "f1", 2, (), ("f1",)),
        ("mine/grades", "spearmanr", 1, (), ("spearmanr",)),
        ("mine/nli3", "accuracy", 3, ("matthews_correlation", "accuracy"), ("matthews_correlation", "accuracy")),
    ],
)
def test_a_task_of_ones_own_has_glues_metrics_or_those_it_names(task, primary, labels, asked, expected):
    names = metrics_of(task, primary, labels, asked)
    assert names == expected
    assert tuple(score(task, [0, 1, 1], [0, 1, 1], names)) == expected
    assert all(found.value == pytest.approx(1.0) for found in score(task, [0, 1, 1], [0, 1, 1], names).values())


@pytest.mark.parametrize(
    ("task", "primary", "labels", "asked", "sentence"),
    [
        (
            "mine/nli3",
            "f1",
            3,
            (),
            "there is no metric f1 of 3 classes; there are accuracy, f1_macro, matthews_correlation",
        ),
        ("mine/grades", "accuracy", 1, (), "there is no metric accuracy of numbers; there are pearson, spearmanr"),
        ("glue/rte", "auc", 2, (), "task.primary=auc: task=glue/rte has the metrics accuracy"),
        ("mine/spam", "f1", 2, ("accuracy",), "task.primary=f1: task=mine/spam has the metrics accuracy"),
        ("mine/rte", "accuracy", 3, ("auc",), "there is no metric auc of 3 classes"),
    ],
)
def test_a_metric_that_the_task_cannot_have_is_refused(task, primary, labels, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics_of(task, primary, labels, asked)


def test_module_and_package_name_the_same_metrics():
    import evaluate

    path = str(ROOT / "experiments" / "metrics" / "glue.py")
    for task, names in GLUE_METRICS.items():
        found = evaluate.load(path, task, keep_in_memory=True).compute(predictions=[0, 1, 1], references=[0, 1, 0])
        assert found is not None
        assert tuple(found) == names


def test_module_refuses_a_task_that_glue_does_not_have():
    import evaluate

    with pytest.raises(KeyError, match="GLUE has no task 'rtx'"):
        evaluate.load(str(ROOT / "experiments" / "metrics" / "glue.py"), "rtx")


def test_scores_need_no_network_and_import_evaluate_only_when_used(tmp_path):
    code = (
        "import socket, sys\n"
        "def refuse(*arguments): raise OSError('no network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from experiments.metrics import score\n"
        "assert not {'evaluate', 'torch', 'datasets'} & set(sys.modules)\n"
        "print(score('rte', [0, 1], [0, 1])['accuracy'].value)\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert (done.stdout.strip(), done.returncode) == ("1.0", 0), done.stderr


def test_scoring_imports_nothing_that_writes_to_a_cache(tmp_path):
    """`evaluate` makes a folder in HF_HOME: where that is read-only, runs were lost when the score was taken."""
    code = (
        "import sys; from experiments.metrics import score\n"
        "assert score('stsb', [0.0, 1.0], [0.0, 1.0])['pearson'].value == 1\n"
        "assert not {'evaluate', 'datasets', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=os.environ | {"HF_HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_metrics_that_do_not_work_stop_a_run_before_it_trains(tmp_path, monkeypatch):
    def broken(*_: object) -> dict[str, float]:
        raise ImportError("no scikit-learn")

    (spec,) = plan(tmp_path / "a", "adapter=head_only")
    monkeypatch.setattr("experiments.metrics.functions.values_of", broken)
    record = execute(spec)
    assert (record.status, record.failure.phase, record.failure.message) == ("failed", "setup", "no scikit-learn")
    assert not (spec.folder / "adapter").exists()
