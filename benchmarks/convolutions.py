"""How fast are convolutions of translated models? Beside OneFlow's own, and beside torch.

    python -m benchmarks.convolutions [--rounds 5] [--quick]

The convolutions are those that rules of ``layered_lr_oneflow/operators/convolutions.py`` name: a forward and a backward
pass on 32 images. The models train at batch 32, each with OneFlow's own convolutions and with ours, eager and in a
graph, and in torch. Each opponent is in a process of its own, in turn; all use one core.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated
from benchmarks.frame.worker import Worker

OWN, OURS, TORCH = "OneFlow's own convolutions", "layered_lr", "torch"
IMAGES = 32
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Case(NamedTuple):
    """A convolution with as many zeros around the images as keep their size, where ``pads`` is true."""

    channels: int
    out_channels: int
    pixels: int
    kernel: int
    stride: int = 1
    groups: int = 1
    pads: bool = True

    def __str__(self) -> str:
        kind = "depthwise" if self.groups == self.channels else f"{self.groups} groups" if self.groups > 1 else ""
        parts = [
            f"{self.kernel}x{self.kernel} on {self.pixels}x{self.pixels}",
            f"{self.channels} to {self.out_channels} channels" if not kind else f"{self.channels} channels, {kind}",
            f"stride {self.stride}" if self.stride > 1 else "",
        ]
        return ", ".join(filter(None, parts))


CASES = (
    Case(512, 512, 1, 3),
    Case(440, 440, 1, 3, groups=55),
    Case(1024, 256, 2, 1),
    Case(64, 64, 16, 1),
    Case(512, 1024, 4, 1, stride=2),
    Case(16, 72, 32, 1),
    Case(384, 768, 4, 2, stride=2, pads=False),
    Case(3, 768, 64, 16, stride=16, pads=False),
    Case(192, 192, 8, 7, groups=192),
    Case(72, 72, 8, 3, stride=2, groups=72),
    Case(256, 256, 4, 3, groups=32),
    Case(96, 96, 16, 3, groups=96),
    Case(96, 96, 32, 3, groups=96),
    Case(512, 512, 2, 3),
    Case(256, 256, 4, 3),
    Case(64, 64, 8, 3),
    Case(64, 256, 8, 3),
    Case(64, 64, 16, 3),
    Case(64, 64, 32, 3),
    Case(256, 512, 4, 3, stride=2),
)

# Where OneFlow's own convolutions are the cost, ours have to be twice as fast.
MODELS = {
    ("resnet18", 32): Target(0.5),
    ("resnet18", 64): Target(0.5),
    ("mobilenet_v3_small", 32): Target(0.5),
    ("mobilenet_v3_small", 64): Target(0.5),
    ("mobilenet_v2", 32): None,
}
BACKENDS = ("oneflow-eager", "oneflow-graph")


class Convolutions:
    """One opponent on single convolutions.

    Args:
        opponent: Its name.
    """

    def __init__(self, opponent: str) -> None:
        self.run = _run_in_torch() if opponent == TORCH else _run_in_oneflow(opponent == OWN)

    def seconds(self, case: list[Any], images: int) -> float:
        """The least time of some passes forwards and backwards: the others were disturbed."""
        return min(self.run(Case(*case), images))


def _run_in_oneflow(own: bool) -> Callable[[Case, int], list[float]]:
    from layered_lr_oneflow.operators import convolutions
    from layered_lr_oneflow.runtime import flow

    if own:
        _leave_to_oneflow()
    sync = flow._oneflow_internal.eager.Sync

    def run(case: Case, images: int) -> list[float]:
        x, weight = (flow.tensor(array, requires_grad=True) for array in _draw(case, images))
        stride, padding, dilation = ((number, number) for number in (case.stride, case.kernel // 2 * case.pads, 1))

        def convolve() -> Any:
            return convolutions.convolve(x, weight, None, stride, padding, dilation, case.groups)

        upstream = flow.ones(*convolve().shape)
        taken = []
        for _ in range(4):
            x.grad = weight.grad = None
            sync()
            began = time.perf_counter()
            convolve().backward(upstream)
            sync()
            taken.append(time.perf_counter() - began)
        return taken

    return run


def _run_in_torch() -> Callable[[Case, int], list[float]]:
    import torch

    def run(case: Case, images: int) -> list[float]:
        x, weight = (torch.from_numpy(array).requires_grad_() for array in _draw(case, images))
        sizes = (case.stride, case.kernel // 2 * case.pads, 1)
        taken = []
        for _ in range(4):
            x.grad = weight.grad = None
            began = time.perf_counter()
            made = torch.nn.functional.conv2d(x, weight, None, *sizes, case.groups)
            made.backward(torch.ones_like(made))
            taken.append(time.perf_counter() - began)
        return taken

    return run


def _draw(case: Case, images: int) -> Iterator[Any]:
    rng = np.random.default_rng(0)
    yield rng.standard_normal((images, case.channels, case.pixels, case.pixels)).astype(np.float32)
    kernel = (case.out_channels, case.channels // case.groups, case.kernel, case.kernel)
    yield rng.standard_normal(kernel).astype(np.float32)


def _leave_to_oneflow() -> None:
    """Let translated models of this process use OneFlow's own convolutions alone."""
    from layered_lr_oneflow.operators import convolutions

    convolutions.FORMS = ()  # type: ignore[misc, assignment]
    convolutions.choose_form.cache_clear()


class Training:
    """One opponent on one model.

    Args:
        opponent: Its name.
        backend: On which it trains.
        model: A name of torchvision's.
        pixels: Height and width of an image.
        named: Whether the backend's own model of this name is taken, and nothing is translated.
    """

    def __init__(self, opponent: str, backend: str, model: str, pixels: int, named: bool = False) -> None:
        from layered_lr.backend.loading import load_backend
        from layered_lr.backend.phased_session import open_session

        if opponent == OWN:
            _leave_to_oneflow()
        loaded = load_backend(backend, "cpu")
        shape = (IMAGES, 3, pixels, pixels)
        made = loaded.build(model if named else lambda: _make(model), 10, 0.0, 0, batch_shape=shape)
        spec = ll.Spec(ll.SGD(1e-3, momentum=0.9), [ll.Group("features*", optional=True)])
        self.session = open_session(loaded, ll.resolve(spec, made, 10_000), made, 10)
        self.rng, self.shape = np.random.default_rng(0), shape

    def seconds(self, steps: int) -> float:
        """The median time of a step of some."""
        return statistics.median([self._step() for _ in range(steps)])

    def _step(self) -> float:
        images = self.rng.standard_normal(self.shape).astype(np.float32)
        labels = self.rng.integers(0, 10, IMAGES)
        began = time.perf_counter()
        self.session.losses([self.session.train_step(images, labels)])
        return time.perf_counter() - began


def _make(name: str) -> Any:
    import torchvision

    model = getattr(torchvision.models, name)(num_classes=10)
    for module in model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0  # by name it is built without
    return model


class ConvolutionSpeed:
    """Convolutions alone, and models."""

    name = "convolutions"
    question = "How fast are the convolutions of translated models, beside OneFlow's own and beside torch?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """Case by case, model by model."""
        series: list[Series] = []
        ratios: list[Ratio] = []
        settings = {name: {"opponent": name} for name in (OWN, OURS, TORCH)}
        for case in CASES[:2] if quick else CASES:
            say(str(case))
            calls = {"case": list(case), "images": 2 if quick else IMAGES}
            _compare(str(case), "Convolutions", settings, calls, rounds, None, series, ratios)
        for (model, pixels), target in list(MODELS.items())[: 0 if quick else None]:
            for backend in BACKENDS:
                what = f"a step of {model} at {pixels}x{pixels}, {backend}"
                say(what)
                shared = {"model": model, "pixels": pixels}
                of = {name: {"opponent": name, "backend": backend, **shared} for name in (OWN, OURS)}
                of[TORCH] = {"opponent": TORCH, "backend": "torch-eager", **shared}
                if model == "mobilenet_v2":
                    of["by name, not translated"] = {**of[OURS], "named": True}
                _compare(what, "Training", of, {"steps": 3}, rounds, target, series, ratios)
        notes = ("Batches of 32, float32, one core. The convolutions: forwards and backwards.",)
        return Report(self.name, self.question, tuple(series), tuple(ratios), (), {}, notes)


def _compare(
    quantity: str,
    kind: str,
    settings: dict[str, dict[str, Any]],
    call: dict[str, Any],
    rounds: int,
    target: Target | None,
    series: list[Series],
    ratios: list[Ratio],
) -> None:
    """Measure opponents in turn, and add what they took and their ratios."""
    workers = {
        name: Worker(f"benchmarks.convolutions:{kind}", given, environment=ENVIRONMENT)
        for name, given in settings.items()
    }
    try:
        turns = {
            name: lambda worker=worker: float(worker.call("seconds", **call).value) for name, worker in workers.items()
        }
        taken = alternated(turns, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    made = {name: Series(name, quantity, "s", tuple(values)) for name, values in taken.values.items()}
    series += made.values()
    if OURS in made:
        for other, of in made.items():
            if other != OURS:
                ratios.append(ratio(made[OURS], of, target if other == OWN else None))


BENCHMARK = ConvolutionSpeed()

if __name__ == "__main__":
    main(BENCHMARK)
