"""Predicted against known, one picture a target, from rows of predictions alone: distances, traces, confidence.

matplotlib is imported by the first picture. Colours: Okabe and Ito 2008, as in `lorta.reporting.styles`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.folding.metrics import coordinates, lddt_per_residue, row_scores
from experiments.folding.superposition import superposed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KNOWN, PREDICTED, CONFIDENCE = "#0072B2", "#D55E00", "#009E73"
INCHES = (10.0, 8.0)


def plot_target(row: Mapping[str, Any], file: Path) -> None:
    """Write a PNG of one row of `writing.prediction_row`: its bytes depend on the row only.

    Top: CA distances of the known and of the predicted chain, one colour scale, angstrom. Bottom: both CA traces after
    the superposition of least RMSD, and the lDDT of each residue beside the predicted one. Raises ValueError for a row
    that cannot be scored.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reference, predicted, scores = coordinates(row["reference_ca"]), coordinates(row["predicted_ca"]), row_scores(row)
    with rc_context({"font.size": 8, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=INCHES, layout="constrained")
        FigureCanvasAgg(figure)
        maps = [figure.add_subplot(2, 2, place) for place in (1, 2)]
        _draw_distances(maps, reference, predicted)
        _draw_traces(figure.add_subplot(2, 2, 3, projection="3d"), reference, predicted)
        _draw_confidence(figure.add_subplot(2, 2, 4), reference, predicted, row["plddt"])
        figure.suptitle(
            f"{row['name']}: {len(row['sequence'])} residues, lDDT-Ca {scores['lddt_ca']:.3f}, TM {scores['tm']:.3f}, "
            f"GDT-TS {scores['gdt_ts']:.3f}, RMSD {scores['rmsd_ca']:.2f} Å"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120, metadata={"Software": None})  # the version would change the bytes


def _draw_distances(axes: "list[Axes]", reference: np.ndarray, predicted: np.ndarray) -> None:
    maps = [np.linalg.norm(chain[:, None] - chain[None], axis=-1) for chain in (reference, predicted)]
    most = max(float(np.nanmax(values)) for values in maps)
    for axis, values, title in zip(axes, maps, ("known", "predicted"), strict=True):
        edges = (0.5, len(values) + 0.5, 0.5, len(values) + 0.5)
        image = axis.imshow(values, vmin=0, vmax=most, cmap="viridis", origin="lower", extent=edges)
        axis.set(title=f"{title}: CA to CA", xlabel="residue", ylabel="residue")
    axes[-1].figure.colorbar(image, ax=axes, label="Å", shrink=0.8)


def _draw_traces(axis: Any, reference: np.ndarray, predicted: np.ndarray) -> None:
    present = np.isfinite(reference).all(axis=1)
    moved = np.full_like(predicted, np.nan)
    everything = np.ones((1, int(present.sum())), dtype=bool)
    moved[present] = superposed(reference[present], predicted[present], everything)[0]
    for chain, colour, name in ((reference, KNOWN, "known"), (moved, PREDICTED, "predicted, superposed")):
        axis.plot(*chain.T, color=colour, linewidth=1.5, marker="o", markersize=2, label=name)
    axis.set(title="CA traces", xlabel="Å", ylabel="Å", zlabel="Å", aspect="equal")
    axis.legend(loc="upper left", frameon=False)


def _draw_confidence(axis: "Axes", reference: np.ndarray, predicted: np.ndarray, plddt: list[float]) -> None:
    places = np.arange(1, len(reference) + 1)
    axis.plot(places, 100 * lddt_per_residue(reference, predicted), color=KNOWN, label="lDDT-Ca")
    axis.plot(places, plddt, color=CONFIDENCE, linestyle="--", label="predicted lDDT")
    axis.set(title="each residue", xlabel="residue", ylabel="points of 100", ylim=(0, 103))
    axis.legend(loc="lower right", frameon=False)
