"""Adapters that go wrong, each in one way; named as `_target_` by the tests of this folder."""

import errno
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


class FitsTwoRows(Faulty):
    """A device that has room for two rows at a time."""

    def go_wrong(self, model: torch.nn.Module) -> None:
        def refuse(module: torch.nn.Module, arguments: Any, inputs: Any) -> None:
            if module.training and len(inputs["input_ids"]) > 2:
                raise torch.OutOfMemoryError("tried to allocate 80 GiB")

        model.register_forward_pre_hook(refuse, with_kwargs=True)


class Greedy(Faulty):
    """Wants two GiB of the host's memory."""

    def go_wrong(self, model: torch.nn.Module) -> None:
        torch.ones(2**29)


class AsksToLeave(Faulty):
    """Sends its own process the signal of a scheduler, at the seventh batch of an attempt."""

    def go_wrong(self, model: torch.nn.Module) -> None:
        batches = iter(range(1000))

        def ask(module: torch.nn.Module, inputs: Any) -> None:
            if module.training and next(batches) == 6:
                os.kill(os.getpid(), signal.SIGUSR1)

        model.register_forward_pre_hook(ask)


class AsksBeforeTraining(Faulty):
    """Sends its own process the signal of a scheduler before there is a step to keep."""

    def go_wrong(self, model: torch.nn.Module) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)


class WithoutPrimitive(Faulty):
    """A processor on which oneDNN has memory for two rows at a time."""

    def go_wrong(self, model: torch.nn.Module) -> None:
        def refuse(module: torch.nn.Module, arguments: Any, inputs: Any) -> None:
            if module.training and len(inputs["input_ids"]) > 2:
                raise RuntimeError("could not create a primitive")

        model.register_forward_pre_hook(refuse, with_kwargs=True)


class SecondStartFails(WithoutPrimitive):
    """The same, and the start after the first failure finds no memory for the model."""

    starts = 0

    def go_wrong(self, model: torch.nn.Module) -> None:
        super().go_wrong(model)
        type(self).starts += 1
        if type(self).starts == 2:
            raise MemoryError


class MeetsOSError(Faulty):
    """Meets an error of the operating system; `error` is its number, then its path where the error has one."""

    error: tuple[int, ...] | tuple[int, str] = (errno.EIO,)

    def go_wrong(self, model: torch.nn.Module) -> None:
        number, *path = self.error
        raise OSError(number, os.strerror(number), *path)
