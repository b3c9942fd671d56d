"""What a run may have changed in its process is given back: the next one in the same process starts like the first."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored() -> Iterator[None]:
    """Behind the block, environment variables, the working directory and torch's global settings are as before it.

    Random generators and the number of threads are not among them: each run sets its own.
    """
    variables, folder, torch_settings = dict(os.environ), os.getcwd(), _settings_of_torch()
    try:
        yield
    finally:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        os.chdir(folder)
        _set_torch(*torch_settings)


def _settings_of_torch() -> tuple[str, bool, str, bool]:
    """Return default dtype, whether gradients are on, precision of float32 products, and whether kernels are chosen.

    Those that torch has from its import where it is not in memory yet.
    """
    if "torch" not in sys.modules:
        return "float32", True, "highest", False
    import torch

    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    return dtype, torch.is_grad_enabled(), precision, deterministic


def _set_torch(dtype: str, gradients: bool, precision: str, deterministic: bool) -> None:
    if "torch" not in sys.modules or _settings_of_torch() == (dtype, gradients, precision, deterministic):
        return
    import torch

    torch.set_default_dtype(getattr(torch, dtype))
    torch.set_grad_enabled(gradients)
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)
