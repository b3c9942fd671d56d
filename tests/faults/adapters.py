"""Adapters that go wrong, each in one way; named as `_target_` by the tests of this folder."""

import os
import signal
import time
from typing import Any

import torch

from baselines.selected_parameters import SelectedParameters


class Faulty(SelectedParameters):
    """Head-only training, until `attach` calls `go_wrong`."""

    def attach(self, backbone: Any, task_type: str) -> torch.nn.Module:
        model = super().attach(backbone, task_type)
        self.go_wrong(model)
        return model

    def go_wrong(self, model: torch.nn.Module) -> None:
        raise NotImplementedError


class Killed(Faulty):
    def go_wrong(self, model: torch.nn.Module) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Slow(Faulty):
    def go_wrong(self, model: torch.nn.Module) -> None:
        time.sleep(60)


class OutOfMemory(Faulty):
    def go_wrong(self, model: torch.nn.Module) -> None:
        raise torch.OutOfMemoryError("tried to allocate 80 GiB")


class NotANumber(Faulty):
    def go_wrong(self, model: torch.nn.Module) -> None:
        with torch.no_grad():
            next(weight for name, weight in model.named_parameters() if "classifier" in name).fill_(float("nan"))


class Broken(Faulty):
    def go_wrong(self, model: torch.nn.Module) -> None:
        raise KeyError("a bug")
