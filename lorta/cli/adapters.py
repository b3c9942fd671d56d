"""`lorta export` and `lorta fit`: from an adapter to a LoRA, and from a LoRA to a LoRTA. They need no harness.

What the arguments say is checked before torch is imported, which takes seconds.
"""

import argparse
from typing import Any

import yaml

from lorta.cli.base_model import base_place
from lorta.config.instantiate import resolve
from lorta.config.places import CONF
from lorta.weight_files import ADAPTER_CONFIG, require_free, require_saved


def declare_export(parser: argparse.ArgumentParser) -> None:
    """Take the adapter, its base model and where to write."""
    parser.add_argument("adapter", help="folder of a saved adapter")
    _declare_folders(parser)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--rank", type=int, help="keep so many singular values of each module's update")
    size.add_argument(
        "--residual", type=float, help="keep the fewest whose relative residual is at most this; not needed for LoRTA"
    )


def declare_fit(parser: argparse.ArgumentParser) -> None:
    """Take the LoRA, its base model, where to write, and how to fit."""
    parser.add_argument("lora", help="folder of a saved LoRA on q, k, v, o or some of them")
    _declare_folders(parser)
    parser.add_argument("--rank", type=int, required=True, help="rank of the LoRTA")
    parser.add_argument("--head-side", choices=("natural", "input", "output"), default="natural")
    parser.add_argument("--restarts", type=int, default=4, help="starts; the best is kept (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random starts (default: %(default)s)")
    parser.add_argument("--sweeps", type=int, default=1000, help="at most, a start (default: %(default)s)")


def _declare_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="the base model: a folder, config.json, name in conf/model or hub repository (default: the saved one)",
    )
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where to write the new adapter")


def export(parsed: argparse.Namespace) -> None:
    """Write the LoRA and print its rank, and what singular values lose. Raises ValueError where there is no LoRA."""
    if parsed.rank is not None:
        _require_positive(parsed, "rank")
    if parsed.residual is not None and not 0 <= parsed.residual < 1:
        raise ValueError(f"--residual={parsed.residual}: a share of the update is needed, at least 0 and below 1.")
    saved = require_saved(parsed.adapter)
    base = _checked_base(parsed, parsed.adapter, saved)
    _be_quiet()
    from lorta.tuner.export import export_folder
    from lorta.tuner.singular_export import EXACT, Truncation, export_singular

    import_tuner(parsed.adapter, saved["peft_type"])
    if saved["peft_type"] == "LORTA" and parsed.rank is None and parsed.residual is None:
        config, fitted = export_folder(parsed.adapter, parsed.to, base), None
    else:
        kept = Truncation(parsed.rank, EXACT if parsed.residual is None else parsed.residual)
        fitted = export_singular(parsed.adapter, parsed.to, kept, base)
        config = fitted.config
    ranks = sorted({config.r, *(config.rank_pattern or {}).values()})
    rank = ", ".join(str(rank) for rank in ranks)
    print(f"{parsed.to}: LoRA of rank {rank} on {len(config.target_modules or ())} modules")
    if fitted is not None:
        print(f"relative residual {fitted.residual:.3e}; rank and residual by module:")
        for path, fit in fitted.modules.items():
            print(f"{fit.rank:5d} {fit.residual:10.3e}  {path}")


def _checked_base(parsed: argparse.Namespace, adapter: str, saved: dict[str, Any]) -> str:
    """Return where the base model lies, when there is a place to write to, too."""
    require_free(parsed.to, adapter)
    return base_place(parsed.base, saved.get("base_model_name_or_path"), saved.get("revision"), adapter)


def _require_positive(parsed: argparse.Namespace, *names: str) -> None:
    for name in names:
        if getattr(parsed, name) < 1:
            raise ValueError(f"--{name}={getattr(parsed, name)}: a whole number, 1 or more, is needed.")


def _be_quiet() -> None:
    """Import the libraries without their notices: nothing in them is about what was asked for."""
    from lorta.system.quiet import quiet_transformers

    quiet_transformers()


def import_tuner(adapter: str, kind: str) -> None:
    """Import the module of a saved adapter's tuner, if one of conf/adapter has it and PEFT does not.

    Raises ValueError for a type that nobody knows.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {str(getattr(name, "value", name)) for name in PEFT_TYPE_TO_CONFIG_MAPPING}
    if kind in known:
        return
    for target in _targets():
        resolve(target)
    if kind not in {str(getattr(name, "value", name)) for name in PEFT_TYPE_TO_CONFIG_MAPPING}:
        raise ValueError(f"{adapter}: PEFT knows no adapter of type {kind}, and no file of conf/adapter has it.")


def _targets() -> list[str]:
    """Return the configurations of tuners that PEFT does not ship, as the files of conf/adapter name them."""
    nodes = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted((CONF / "adapter").glob("*.yaml"))]
    targets = {node["config"]["_target_"] for node in nodes if "config" in node}
    return sorted(target for target in targets if not target.startswith("peft."))


def fit(parsed: argparse.Namespace) -> None:
    """Write the LoRTA and print its size and residuals. Raises ValueError for a LoRA that it cannot read."""
    _require_positive(parsed, "rank", "restarts", "sweeps")
    saved = require_saved(parsed.lora)
    if saved["peft_type"] != "LORA":
        kind = saved["peft_type"]
        raise ValueError(
            f"{parsed.lora}/{ADAPTER_CONFIG}: it is a {kind} adapter, not LORA: `lorta export` makes one of it."
        )
    base = _checked_base(parsed, parsed.lora, saved)
    _be_quiet()
    from lorta.tuner.fit import FitSettings, fit_folder

    settings = FitSettings(parsed.rank, parsed.head_side, parsed.restarts, parsed.seed, parsed.sweeps)
    config, fitted = fit_folder(parsed.lora, parsed.to, settings, base)
    geometry = config.geometry or {}
    print(
        f"{parsed.to}: LoRTA of rank {config.r}, {sum(factor.numel() for factor in fitted.factors.values())} parameters"
    )
    print(f"relative residual {fitted.residual:.3e} after {fitted.sweeps} sweeps; by layer and matrix:")
    print("layer", *(f"{role:>10}" for role in geometry["roles"]))
    for layer, row in zip(geometry["layers"], fitted.slices.tolist(), strict=True):
        print(f"{layer:5d}", *(f"{value:10.3e}" for value in row))
