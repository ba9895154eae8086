"""Measures one model on the OneFlow backends, beside torch: both modes, float64 and float32, and twenty updates."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import layered_lr as ll
from benchmarks.translation.differences import (
    Passed,
    find_difference,
    pass_through_graph,
    pass_through_oneflow,
    pass_through_torch,
    shake_statistics,
)
from benchmarks.translation.zoo import CLASSES, find_size, make, make_for_compare
from layered_lr.arrays import Arrays
from layered_lr.backend.loading import load_backend
from layered_lr_oneflow.build_model import build_translated
from layered_lr_torch.trace_model import trace_model

BACKENDS = ("oneflow-eager", "oneflow-graph")
UPDATES = 20
LARGEST_JUDGED = 2_000_000  # parameters; the certificate trains some twenty runs of a model

KINDS = ("evaluation answers", "evaluation gradients", "training answers", "training gradients", "buffers")


def measure(name: str, judges: bool = True) -> dict[str, Any]:
    """Measure one model, in this process.

    Args:
        name: Of torchvision.
        judges: Whether the certificate judges a small model, too.

    Returns:
        A row: sizes; ``float64``, which has the distance from torch of each backend and kind of number; ``itself``,
        that of torch from itself with weights one last bit off; ``float32``, the distance from torch's float64, over
        torch's own distance from it; ``updates``, the distance of the weights after twenty updates over how far torch
        moved them; ``verdict`` of the certificate, where it is cheap.
    """
    size = find_size(name)
    x = np.random.default_rng(0).normal(size=(size.images, 3, size.pixels, size.pixels))
    row: dict[str, Any] = {"model": name, **size._asdict(), "seconds": 0.0}
    reference: list[Passed] = []
    for dtype in ("float64", "float32"):
        torch.manual_seed(0)
        model = make(name).to(getattr(torch, dtype))
        shake_statistics(model)
        _round_constants(model)
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        images = x.astype(dtype)
        began = time.process_time()
        graph = trace_model(model, (images,))
        row["seconds"] += time.process_time() - began
        theirs = list(_pass_through_torch(copy.deepcopy(model), images))
        reference = reference or theirs
        own = _find_distances(reference, theirs)
        row[dtype] = {}
        for backend in BACKENDS:
            far = _find_distances(reference, list(_pass_through(backend, build_translated(graph), images)))
            if dtype == "float32":
                far = {kind: far[kind] / max(own[kind], 1e-7) for kind in KINDS}  # below that it is one rounding
            row[dtype][backend] = far
        if dtype == "float64":
            row["itself"] = _find_distances(reference, list(_pass_through_torch(_nudge(model), images)))
            row["updates"] = dict(_compare_updates(model, graph, size.pixels, size.images))
    if judges and row["parameters"] <= LARGEST_JUDGED and size.pixels == 32:
        row["verdict"] = _judge(name, model)
    return row


def _round_constants(model: Any) -> None:
    """Round what OneFlow's batch normalisation holds in float32, so that nothing but rounding and faults is left."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eps = float(np.float32(module.eps))
            module.momentum = None if module.momentum is None else float(np.float32(module.momentum))


def _nudge(model: Any) -> Any:
    """A copy whose weights are one last bit off, up or down at random: what rounding alone does to its gradients."""
    nudged = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in nudged.parameters():
            far = torch.where(torch.rand(parameter.shape, generator=generator) < 0.5, -torch.inf, torch.inf)
            parameter.copy_(torch.nextafter(parameter, far.to(parameter.dtype)))
    return nudged


def _pass_through_torch(model: Any, x: NDArray[Any]) -> Iterator[Passed]:
    for training in (False, True):
        yield pass_through_torch(model.train(training), x)


def _pass_through(backend: str, model: Any, x: NDArray[Any]) -> Iterator[Passed]:
    run = pass_through_oneflow if backend == "oneflow-eager" else pass_through_graph
    for training in (False, True):
        yield run(model.train(training), x)


def _find_distances(reference: list[Passed], found: list[Passed]) -> dict[str, float]:
    (evaluation, training), (own_evaluation, own_training) = found, reference
    pairs = (
        (own_evaluation.answers, evaluation.answers),
        (own_evaluation.gradients, evaluation.gradients),
        (own_training.answers, training.answers),
        (own_training.gradients, training.gradients),
        (own_training.buffers, training.buffers),
    )
    return {kind: find_difference(*pair) for kind, pair in zip(KINDS, pairs, strict=True)}


def _make_spec(names: list[str]) -> ll.Spec:
    """Three groups: the first third of the parameters, the second, and the rest."""
    third = max(len(names) // 3, 1)
    groups = [
        ll.Group(names[:third], name="first", lr_scale=0.1),
        ll.Group(names[third : 2 * third], name="second", lr_scale=0.5, weight_decay=1e-3),
        ll.Group(names[2 * third :], name="third"),
    ]
    return ll.Spec(ll.SGD(1e-3, momentum=0.9), groups, schedule=ll.CosineAnnealingLR(UPDATES))


def _compare_updates(model: Any, graph: Any, pixels: int, images: int) -> Iterator[tuple[str, float]]:
    """How far the weights of each backend are from torch's after some updates, over how far torch's have moved."""
    before = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    spec = _make_spec(list(before))
    theirs = _update("torch-eager", copy.deepcopy(model), spec, pixels, images)
    moved = max(float(np.abs(theirs[name] - array).max()) for name, array in before.items())
    for backend in BACKENDS:
        ours = _update(backend, build_translated(graph), spec, pixels, images)
        yield backend, max(float(np.abs(theirs[name] - ours[name]).max()) for name in before) / moved


def _update(backend: str, model: Any, spec: ll.Spec, pixels: int, images: int) -> Arrays:
    loaded = load_backend(backend, "cpu")
    session = loaded.open(ll.resolve(spec, model, UPDATES), model, CLASSES)
    rng = np.random.default_rng(1)
    for _ in range(UPDATES):
        x = rng.standard_normal((images, 3, pixels, pixels)).astype(np.float32)
        session.losses([session.train_step(x, rng.integers(0, CLASSES, images))])
    return {name: np.array(array) for name, array in session.weights().items()}


def _judge(name: str, model: Any) -> str:
    """What the certificate says of some updates under a spec of three groups."""
    spec = _make_spec([name for name, _ in model.named_parameters()])
    make_model = partial(make_for_compare, name)
    found = ll.compare(spec, model=make_model, steps=UPDATES, batch_size=4, progress=False)
    return "within rounding" if found.same else "different"
