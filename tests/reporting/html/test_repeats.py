from dataclasses import replace

from lorta.records.record import Environment, RunRecord
from lorta.reporting.html.repeats import drift_sentences, drifts
from tests.example_records import finished


def run(value: float, loss: float | None = 0.5) -> RunRecord:
    return replace(finished(), metrics=finished(value=value).metrics, train_loss_final=loss)


def reference(record: RunRecord) -> dict[str, RunRecord]:
    return {record.run_id: record}


def test_the_same_score_is_no_drift():
    assert drifts([run(0.8)], reference(run(0.8, loss=0.6))) == []


def test_drift_with_another_loss_is_of_training_and_else_of_evaluation():
    (training,) = drifts([run(0.7)], reference(run(0.8, loss=0.6)))
    (evaluation,) = drifts([run(0.7)], reference(run(0.8)))
    assert (training.in_training, evaluation.in_training) == (True, False)
    assert round(evaluation.difference, 9) == -0.1


def test_drift_is_told_with_the_worst_run():
    (sentence,) = drift_sentences([run(0.7)], reference(run(0.8)))
    assert "1 of 1 runs that were recorded elsewhere have different scores here, by up to 0.1" in sentence
    assert run(0.7).run_id in sentence


def test_agreement_and_ignorance_are_told_apart():
    assert (
        "1 of these runs were recorded elsewhere with the same scores"
        in drift_sentences([run(0.8)], reference(run(0.8)))[0]
    )
    assert "Drift: not known" in drift_sentences([run(0.8)], {})[0]


def test_environments_are_told_by_the_packages_that_differ():
    def in_environment(record: RunRecord, torch: str) -> RunRecord:
        packages = {"torch": torch, "numpy": "2.0"}
        environment = Environment(python="3.11", packages=packages, lock_sha256=None, env_vars={})
        return replace(record, environment=environment, env_fingerprint=torch)

    records = [in_environment(finished(seed=seed), f"2.1{seed}") for seed in range(2)]
    sentence = drift_sentences(records, {})[1]
    assert "2 environments" in sentence
    assert "torch 2.10, 2.11" in sentence
    assert "numpy" not in sentence
