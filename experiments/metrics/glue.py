"""GLUE's metrics as an `evaluate` module, for `evaluate.load(<this file>, <task>)` without a hub.

Which task has which metric: Wang et al. 2018, arXiv:1804.07461, and the hub's own `glue` module. The numbers are those
of `experiments.metrics.functions`.
Keep `import` to one module per line: evaluate 0.4.6 scans these lines with a regular expression and trips over two.
"""

import datasets
import evaluate

from experiments.metrics import GLUE_METRICS
from experiments.metrics.functions import values_of


class Glue(evaluate.Metric):
    """The metrics of one GLUE task, which is the configuration name. Raises KeyError for a task GLUE does not have."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in GLUE_METRICS:
            raise KeyError(f"GLUE has no task '{self.config_name}'; its tasks are {', '.join(GLUE_METRICS)}")
        kind = "float64" if self.config_name == "stsb" else "int64"
        return evaluate.MetricInfo(
            description="GLUE's metrics.",
            citation="Wang et al. 2018, arXiv:1804.07461",
            inputs_description="predictions and references: class indices, or scores for stsb",
            features=datasets.Features({"predictions": datasets.Value(kind), "references": datasets.Value(kind)}),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return values_of(GLUE_METRICS[str(self.config_name)], predictions, references)
