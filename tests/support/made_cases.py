"""Cases of ``random_cases`` made by the library in each of its ways: a run, a stopped run, loops of ones own."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.registry import TABLE
from tests.support.hand_training import Training
from tests.support.random_cases import (
    BATCH,
    BATCHES_OF_EPOCH,
    CLASSES,
    FEATURES,
    HIDDEN,
    Case,
    batch,
    held_out_images,
    parts_of,
    start_weights,
    updates_of_epoch,
)


class GivenBatches(ll.Callback):
    """Puts a case's own batches in the place of those of the data set.

    Args:
        case: Which one.
        stop_after: So many updates; None goes to the end.
    """

    def __init__(self, case: Case, stop_after: int | None = None) -> None:
        self.case, self.stop_after = case, stop_after

    def on_batch(self, event: Any) -> None:
        images, labels = batch(self.case, event.step, parts_of(self.case, event.step))
        assert images.shape == event.images.shape
        event.images, event.labels = images, labels

    def on_update(self, event: Any) -> None:
        if event.step + 1 == self.stop_after:
            event.run.stop("as the case says")


def framework_of(backend: str) -> Any:
    """The module of the framework that a backend stands on."""
    if TABLE[backend].framework == "oneflow":
        from layered_lr_oneflow.runtime import flow

        return flow
    import torch

    return torch


def net_of(framework: Any, case: Case) -> Any:
    """The model of ``hand_training.Net``, of either framework."""
    nn = framework.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(FEATURES, HIDDEN, bias=not case["norm"])
            self.norm = nn.BatchNorm1d(HIDDEN) if case["norm"] else nn.Identity()
            self.head = nn.Linear(HIDDEN, CLASSES)

        def forward(self, images: Any) -> Any:
            return self.head(framework.tanh(self.norm(self.body(images.flatten(1)))))

    return Net()


def _small_net(framework: Any) -> Any:
    model = framework.nn.Sequential()
    model.add_module("flat", framework.nn.Flatten(1))
    model.add_module("body", framework.nn.Linear(FEATURES, 4))
    model.add_module("tanh", framework.nn.Tanh())
    model.add_module("head", framework.nn.Linear(4, CLASSES))
    return model


def torch_net() -> Any:
    """A small net without a case, whose parameters are in ``body`` and ``head``."""
    return _small_net(framework_of("torch-eager"))


def oneflow_net() -> Any:
    """The same net of OneFlow."""
    return _small_net(framework_of("oneflow-eager"))


BUILDERS = {"torch": torch_net, "oneflow": oneflow_net}


def spec_of(case: Case) -> ll.Spec:
    """The spec of a case."""
    return ll.Spec.from_dict(case["spec"])


def run_options(case: Case, backend: str) -> dict[str, Any]:
    """What ``ll.run`` is given beside the spec."""
    framework = framework_of(backend)
    x_test, y_test = held_out_images(case)
    size = BATCH * BATCHES_OF_EPOCH
    return {
        "backend": backend,
        "model": lambda: net_of(framework, case),
        "data": (np.zeros((size, 3, 2, 2), np.float32), np.arange(size) % CLASSES, x_test, y_test),
        "batch_size": BATCH,
        "max_steps": case["max_steps"],
        "accumulate_steps": case["accumulate_steps"],
        "ema_decay": case["ema_decay"],
        "precision": case["dtype"],
        "initial_weights": _start(case),
        "augment": False,
        "callbacks": [GivenBatches(case)],
        "progress": False,
    }


def _start(case: Case) -> dict[str, Any]:
    start: dict[str, Any] = {name: array.astype(case["dtype"]) for name, array in start_weights(case).items()}
    return start | ({"norm.num_batches_tracked": np.array(0)} if case["norm"] else {})


def run_case(case: Case, backend: str) -> Training:
    """Make a case by ``ll.run``.

    Raises:
        LayeredLRError: The backend cannot make it exactly.
    """
    return _training_of(ll.run(spec_of(case), **run_options(case, backend)))


def resume_case(case: Case, backend: str) -> Training:
    """Make a case by a run that ends early and ``ll.resume``.

    Raises:
        LayeredLRError: The backend cannot make it exactly.
    """
    options = run_options(case, backend)
    half = case["max_steps"] // 2
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        ll.run(spec_of(case), **{**options, "callbacks": [GivenBatches(case, half)]}, checkpoints=run)
        model, data = options["model"], options["data"]
        with contextlib.redirect_stderr(io.StringIO()) as said:
            result = ll.resume(run, model=model, data=data, callbacks=options["callbacks"], progress=False)
        assert "Going back" not in said.getvalue(), said.getvalue()  # to an older checkpoint than the newest
        return _training_of(result)


def _training_of(result: ll.Result) -> Training:
    return Training(
        losses=list(result.losses),
        rates={name: list(rates) for name, rates in result.rates.items()},
        norms={name: list(norms) for name, norms in result.group_grad_norms.items()},
        accuracies=list(result.accuracies),
        weights={name: array.astype(np.float64) for name, array in result.weights.items()},
        average={name: array.astype(np.float64) for name, array in result.ema_weights.items()},
    )


def loop_case(case: Case, backend: str) -> Training:
    """Make a case by a loop of ones own: ``ll.compile``, and in the middle ``save_state`` and ``load_state``.

    Raises:
        LayeredLRError: The backend cannot make it exactly.
    """
    flow = framework_of(backend)
    model, optimizer, scheduler = _compiled(flow, case)
    losses = []
    for step in range(case["max_steps"]):
        if step == case["max_steps"] // 2:
            old = model, optimizer, scheduler
            model, optimizer, scheduler = _compiled(flow, case)
            _pass_on(old, (model, optimizer, scheduler))
        optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        parts = parts_of(case, step)
        images, labels = batch(case, step, parts)
        for x, y in zip(np.split(images, parts), np.split(labels, parts), strict=True):
            answer = model(flow.tensor(x.astype(case["dtype"])))
            part = flow.nn.functional.cross_entropy(answer, flow.tensor(y)) / parts
            if part.requires_grad:
                part.backward()
            loss += float(part.detach().numpy())
        losses.append(loss)
        optimizer.step()
        scheduler.step()
        if reads_losses(case):
            scheduler.step(metrics=loss)
    return Training(losses, _weights(model), rates=None, norms=None, accuracies=None, average=None)


def graph_case(case: Case, backend: str) -> Training:
    """Make a case by Graphs of ones own: ``ll.attach``, and in the middle ``save_state`` and ``load_state``.

    Each phase has a Graph, since one is compiled for one phase.

    Raises:
        LayeredLRError: The backend cannot make it exactly.
    """
    flow = framework_of(backend)
    model, graph = _graph(flow, case, 0)
    losses = []
    for step in range(case["max_steps"]):
        phase = graph.scheduler.plan.phase_index
        if step and (step == case["max_steps"] // 2 or phase(step) != phase(step - 1)):
            old = model, graph, graph.scheduler
            model, graph = _graph(flow, case, step)
            _pass_on(old, (model, graph, graph.scheduler))
        images, labels = batch(case, step, 1)
        loss = graph(flow.tensor(images.astype(case["dtype"])), flow.tensor(labels))
        losses.append(float(loss.numpy()))
        graph.scheduler.step()
        if reads_losses(case):
            graph.scheduler.step(metrics=losses[-1])
    return Training(losses, _weights(model), rates=None, norms=None, accuracies=None, average=None)


def _graph(flow: Any, case: Case, step: int) -> tuple[Any, Any]:
    model = _filled(flow, case)

    class TrainGraph(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            more = {"step": step} if case["spec"].get("phases") else {}
            lengths = {"total_steps": case["max_steps"], "steps_per_epoch": updates_of_epoch(case)}
            self.scheduler = ll.attach(spec_of(case), self, model, **lengths, **more)

        def build(self, images: Any, labels: Any) -> Any:
            loss = flow.nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            return loss

    return model, TrainGraph()


def has_loop(case: Case) -> bool:
    """Whether a loop of ones own can be told what the case's schedules read: the loss of each update, no epoch's."""
    return case["ema_decay"] is None and all(plateau.get("unit") == "step" for plateau in _plateaus(case))


def reads_losses(case: Case) -> bool:
    """Whether a schedule of the case has to be told each loss."""
    return bool(_plateaus(case))


def _plateaus(case: Case) -> list[Case]:
    spec = case["spec"]
    tables = [each.get("schedule") for each in (spec, *spec["groups"], *spec.get("phases", ()))]
    known = [table for table in tables if table is not None]
    inner = [table["then"] if table["type"] == "Warmup" else table for table in known]
    return [table for table in inner if table["type"] == "ReduceLROnPlateau"]


def _filled(framework: Any, case: Case) -> Any:
    model = net_of(framework, case).to(getattr(framework, case["dtype"]))
    start = {name: framework.tensor(array) for name, array in _start(case).items()}
    model.load_state_dict(start)
    return model


def _compiled(framework: Any, case: Case) -> tuple[Any, Any, Any]:
    model = _filled(framework, case)
    lengths = {"total_steps": case["max_steps"], "steps_per_epoch": updates_of_epoch(case)}
    return model, *ll.compile(spec_of(case), model, **lengths)


def _pass_on(old: tuple[Any, Any, Any], new: tuple[Any, Any, Any]) -> None:
    """Save the state of a loop, and load it into another one."""
    with tempfile.TemporaryDirectory() as folder:
        ll.save_state(Path(folder) / "state", *old)
        ll.load_state(Path(folder) / "state", *new)


def _weights(model: Any) -> dict[str, Any]:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


WAYS: dict[str, Callable[[Case, str], Training]] = {
    "run": run_case,
    "resume": resume_case,
    "loop": loop_case,
    "graph": graph_case,
}


def ways_of(case: Case, backend: str) -> list[str]:
    """The ways in which a backend may make a case."""
    loop = {"torch-eager": "loop", "oneflow-eager": "loop", "oneflow-graph": "graph"}.get(backend)
    if loop is None or not has_loop(case) or (loop == "graph" and case["accumulate_steps"] > 1):
        return ["run", "resume"]
    return ["run", "resume", loop]
