"""`lorta export` and `lorta fit`: from a LoRTA adapter to a LoRA, and back. They need no harness."""

import argparse


def declare_export(parser: argparse.ArgumentParser) -> None:
    """Take the adapter, its base model and where to write."""
    parser.add_argument("adapter", help="folder of a saved LoRTA adapter")
    _declare_folders(parser)


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
    """Write the LoRA and print its rank."""
    from lorta.tuner.export import export_folder

    config = export_folder(parsed.adapter, parsed.to, parsed.base)
    ranks = sorted({config.r, *(config.rank_pattern or {}).values()})
    rank = ", ".join(str(rank) for rank in ranks)
    print(f"{parsed.to}: LoRA of rank {rank} on {len(config.target_modules or ())} modules")


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
