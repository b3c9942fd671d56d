"""`lorta export` and `lorta fit`: from an adapter to a LoRA, and from a LoRA to a LoRTA. They need no harness."""

import argparse
import json
from pathlib import Path

import yaml

from lorta.config.instantiate import resolve
from lorta.config.places import CONF


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
    parser.add_argument("--base", help="the base model's folder or config.json, if the adapter does not name it")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where to write the new adapter")


def export(parsed: argparse.Namespace) -> None:
    """Write the LoRA and print its rank, and what singular values lose. Raises ValueError where there is no LoRA."""
    from lorta.tuner.export import export_folder, peft_type, read_config, require_free
    from lorta.tuner.singular_export import EXACT, Truncation, export_singular

    require_free(parsed.to, parsed.adapter)
    import_tuner(parsed.adapter)
    if peft_type(read_config(parsed.adapter)) == "LORTA" and parsed.rank is None and parsed.residual is None:
        config, fitted = export_folder(parsed.adapter, parsed.to, parsed.base), None
    else:
        kept = Truncation(parsed.rank, EXACT if parsed.residual is None else parsed.residual)
        fitted = export_singular(parsed.adapter, parsed.to, kept, parsed.base)
        config = fitted.config
    ranks = sorted({config.r, *(config.rank_pattern or {}).values()})
    rank = ", ".join(str(rank) for rank in ranks)
    print(f"{parsed.to}: LoRA of rank {rank} on {len(config.target_modules or ())} modules")
    if fitted is not None:
        print(f"relative residual {fitted.residual:.3e}; rank and residual by module:")
        for path, fit in fitted.modules.items():
            print(f"{fit.rank:5d} {fit.residual:10.3e}  {path}")


def import_tuner(adapter: str) -> None:
    """Import the module of a saved adapter's tuner, if one of conf/adapter has it and PEFT does not.

    Raises ValueError for a type that nobody knows.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    file = Path(adapter) / "adapter_config.json"
    if not file.is_file():
        return  # whoever reads the adapter says so
    kind = json.loads(file.read_text(encoding="utf-8")).get("peft_type")
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
    from lorta.tuner.fit import FitSettings, fit_folder

    settings = FitSettings(parsed.rank, parsed.head_side, parsed.restarts, parsed.seed, parsed.sweeps)
    config, fitted = fit_folder(parsed.lora, parsed.to, settings, parsed.base)
    geometry = config.geometry or {}
    print(
        f"{parsed.to}: LoRTA of rank {config.r}, {sum(factor.numel() for factor in fitted.factors.values())} parameters"
    )
    print(f"relative residual {fitted.residual:.3e} after {fitted.sweeps} sweeps; by layer and matrix:")
    print("layer", *(f"{role:>10}" for role in geometry["roles"]))
    for layer, row in zip(geometry["layers"], fitted.slices.tolist(), strict=True):
        print(f"{layer:5d}", *(f"{value:10.3e}" for value in row))
