"""Backend ``torch-compile``: the model compiled by torch, the optimizer as in ``torch-eager``."""

from __future__ import annotations

import functools
import os
import shutil
import time
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch._dynamo.callback import callback_handler

from layered_lr.backend.base import StepOutcome
from layered_lr.console import say
from layered_lr.errors import BackendUnavailable
from layered_lr_torch.backend import TorchBackend
from layered_lr_torch.session import TorchSession

_BEFOREHAND: Final = (
    "torch-compile: compiling the model at the first update (MobileNetV2: up to a minute on two cores; kept in "
    "torch's cache, so that the next time takes seconds)."
)


def _options(device: torch.device) -> dict[str, Any] | None:
    """What inductor is to do besides what it does by itself."""
    if device.type != "cpu":
        return None
    try:
        from layered_lr_torch.small_maps import SmallMaps
    except ImportError:  # torch before 2.6
        return None
    return {"post_grad_custom_pre_pass": SmallMaps()}


class _Stopwatch:
    """What torch has compiled for in this process, in seconds: forward passes, and backward passes when they come."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def listen(self) -> None:
        """From now on, if not before; ``torch._dynamo.reset`` ends it."""
        if self._start not in callback_handler.start_callbacks:
            callback_handler.register_start_callback(self._start)
            callback_handler.register_end_callback(self._stop)

    def _start(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _stop(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self._began


@functools.cache
def _stopwatch() -> _Stopwatch:
    return _Stopwatch()


@final
class CompiledSession(TorchSession):
    """A ``TorchSession`` that says what compiling has taken."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._watch = _stopwatch()

    def _update(self, images: NDArray[np.float32], labels: NDArray[np.int64], parts: int) -> StepOutcome:
        self._watch.listen()
        before = self._watch.seconds
        outcome = super()._update(images, labels, parts)
        self.compile_seconds = (self.compile_seconds or 0.0) + self._watch.seconds - before
        return outcome


@final
class TorchCompile(TorchBackend):
    """``torch.compile`` of the model's forward and backward pass.

    Rates act in the optimizer, outside of what is compiled, so that no rate and no step compiles anything anew. A step
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

    def forward(self, model: torch.nn.Module) -> Callable[..., Any]:
        """The model, compiled at its first batch, which is said on stderr before.

        Each session has a code object of its own: torch counts compilations by code object, and gives up compiling
        after eight, which the phases of one run would soon reach.
        """

        def forward(images: torch.Tensor) -> Any:
            return model(images)

        own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
        compiled = torch.compile(own, options=_options(self.device))
        said = False

        def announced(images: torch.Tensor) -> Any:
            nonlocal said
            if not said:
                said = True
                say(_BEFOREHAND)
            return compiled(images)

        return announced
