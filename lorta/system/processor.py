"""What the processor of this machine can compute fast. No torch: it is asked while a sweep is planned."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # of x86, x86 and ARM, as Linux names them


def has_fast_bf16(cpuinfo: Path = CPUINFO) -> bool | None:
    """Return whether the processor multiplies bfloat16 itself; None where the system does not say (no Linux).

    torch.cpu.get_capabilities() says the same of x86, and costs the import of torch.
    """
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return None
    flags = [line.partition(":")[2].split() for line in lines if line.lower().startswith(("flags", "features"))]
    return bool(BF16_FLAGS & set(flags[0])) if flags else None
