"""Backend ``torch-compile``: torch compiles the model; the optimizer is the one of ``torch-eager``."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, ClassVar, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch._dynamo.callback import callback_handler

from layered_lr.arrays import Targets
from layered_lr.backend.session import Extras, StepOutcome
from layered_lr.console import say
from layered_lr.errors import BackendUnavailable
from layered_lr.plans.plan import Plan
from layered_lr_torch.backend import TorchBackend
from layered_lr_torch.session import TorchSession
from layered_lr_torch.torch_types import Forward, Module, Tensor

_NOTICE: Final = (
    "torch-compile: compiling the model at the first update (MobileNetV2: up to a minute on two cores). torch keeps "
    "the result in its cache, so the next run needs only seconds."
)


def _make_inductor_options(device: torch.device) -> dict[str, Any] | None:
    """Options for inductor that make it faster on this device; None where its own are best."""
    if device.type != "cpu":
        return None
    try:
        from layered_lr_torch.small_maps import SmallMaps
    except ImportError:  # torch before 2.6
        return None
    return {"post_grad_custom_pre_pass": SmallMaps()}


class _Stopwatch:
    """Counts the seconds that torch compiles in this process, forward and backward passes alike."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def listen(self) -> None:
        """Register with torch if it is not registered; ``torch._dynamo.reset`` removes the registration."""
        if self._start not in callback_handler.start_callbacks:
            callback_handler.register_start_callback(self._start)
            callback_handler.register_end_callback(self._stop)

    def _start(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


@functools.cache
def _get_stopwatch() -> _Stopwatch:
    return _Stopwatch()


_SUBNORMAL: Final = 5e-324  # the smallest float64: 0 to a processor that flushes subnormals


def _flushes_subnormals() -> bool:
    """Whether this thread takes numbers near 0 (in float32 below 1.2e-38) for 0."""
    return _SUBNORMAL * 1.0 == 0.0


@contextmanager
def _keep_subnormals() -> Iterator[None]:
    """Let what runs inside change nothing about subnormals.

    torch 2.4 compiles with ``-ffast-math``. Loading such code makes the processor flush subnormals from then on, in all
    that the thread computes: also the updates, and every later run on ``torch-eager``.
    """
    flushed = _flushes_subnormals()
    try:
        yield
    finally:
        if not flushed and _flushes_subnormals():
            torch.set_flush_denormal(False)


@final
class CompiledSession(TorchSession):
    """A ``TorchSession`` that measures how long torch has compiled."""

    def __init__(
        self,
        plan: Plan,
        model: Module,
        num_classes: int,
        device: torch.device,
        forward: Forward,
        extras: Extras,
        step: int = 0,
    ) -> None:
        super().__init__(plan, model, num_classes, device, forward, extras, step)
        self._stopwatch = _get_stopwatch()

    def _update(self, images: NDArray[np.float32], labels: Targets, parts: int) -> StepOutcome:
        self._stopwatch.listen()
        before = self._stopwatch.seconds
        outcome = super()._update(images, labels, parts)
        self.compile_seconds = (self.compile_seconds or 0.0) + self._stopwatch.seconds - before
        return outcome

    def _backward(self, images: Tensor, labels: Tensor, part: int, parts: int) -> Tensor:
        with _keep_subnormals():  # torch compiles in the first forward pass, and in the first backward pass
            return super()._backward(images, labels, part, parts)


@final
class TorchCompile(TorchBackend):
    """``torch.compile`` of the model's forward and backward pass.

    The optimizer applies the rates, outside of the compiled code: no rate and no step compiles anything again. A step
    of MobileNetV2 (batch 64, 32x32, two cores) takes 0.7 times as long as ``torch-eager``'s, and 0.97 without
    ``small_maps``.

    Raises:
        BackendUnavailable: There is no C++ compiler, which torch needs to compile for a CPU.
    """

    name: ClassVar[str] = "torch-compile"
    session: ClassVar[type[TorchSession]] = CompiledSession

    def __init__(self, device: str = "auto") -> None:
        super().__init__(device)
        if self.device.type == "cpu" and not any(map(shutil.which, [os.environ.get("CXX", "g++"), "g++", "clang++"])):
            raise BackendUnavailable(
                self.name,
                "needs a C++ compiler, and there is no g++ or clang++ on the PATH",
                "Install one (apt install g++), or use backend 'torch-eager'.",
            )

    def build_forward(self, model: Module) -> Forward:
        """Make a forward pass that torch compiles at its first batch; a notice on stderr says so before.

        Each session gets a code object of its own. torch counts compilations by code object and stops compiling after
        eight, which the phases of one run would soon reach.
        """

        def forward(images: Tensor) -> Any:
            return model(images)

        own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
        compiled = torch.compile(own, options=_make_inductor_options(self.device))
        has_said = False

        def announce_and_call(images: Tensor) -> Any:
            nonlocal has_said
            if not has_said:
                has_said = True
                say(_NOTICE)
            return compiled(images)

        return announce_and_call
