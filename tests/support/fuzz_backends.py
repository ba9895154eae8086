"""What the fuzzer does with real backends: random cases that have to be those by hand, and specs with junk in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import layered_lr as ll
from tests.support.fuzz import Target, hold_once
from tests.support.fuzz_specs import specs
from tests.support.judged_cases import judge_case
from tests.support.made_cases import BUILDERS, framework_of, ways_of
from tests.support.random_cases import draw_case

OPTIONS: dict[str, SearchStrategy[Any]] = {
    "max_steps": st.integers(1, 4),
    "batch_size": st.sampled_from([1, 3, 4, 99]),
    "accumulate_steps": st.sampled_from([1, 2]),
    "ema_decay": st.sampled_from([None, 0.0, 0.9]),
    "divergence": st.sampled_from(["stop", "skip", "rollback"]),
    "precision": st.sampled_from(["float32", "float64", "bfloat16"]),
    "augment": st.sampled_from([None, False, True]),
    "seed": st.integers(0, 3),
}
DATA = (np.linspace(0, 1, 96, dtype=np.float32).reshape(8, 3, 2, 2), np.arange(8) % 3) * 2


@st.composite
def cases(draw: Any) -> Any:
    """Cases as ``random_cases`` has them, which hypothesis can make smaller."""
    return draw_case(lambda options: draw(st.sampled_from(options)))


def of_cases(backend: str) -> Target:
    """Random cases in a random one of the ways in which a backend makes them: the numbers of the loop by hand."""

    def make(case: Any, way: int) -> None:
        ways = ways_of(case, backend)
        found = judge_case(case, ways[way % len(ways)], backend)
        assert not found or found[0].startswith("refused"), found

    return Target(f"cases on {backend}", make, {"case": cases(), "way": st.integers(0, 5)})


def of_runs(backend: str) -> Target:
    """Any spec through ``run``, and on with ``resume``: finite numbers, and as many as were asked for."""

    def train(spec: ll.Spec, more: int, **chosen: Any) -> None:
        said = {"model": BUILDERS[backend.split("-")[0]], "data": DATA, "progress": False}
        steps = chosen.pop("max_steps", 2)
        with tempfile.TemporaryDirectory() as folder:
            given: dict[str, Any] = {**said, **chosen, "checkpoints": f"{folder}/run"} if more else {**said, **chosen}
            try:
                result = ll.run(spec, backend=backend, max_steps=steps, **given)
            except ll.LayeredLRError:
                if not more:
                    raise
                spec.to_dict()  # what cannot be written down has no checkpoints
                raise
            _check(result, steps)
            if more:
                _check(ll.resume(f"{folder}/run", max_steps=steps + more, trust=True, **said), steps + more)

    return Target(f"run on {backend}", train, {"spec": specs, "more": st.sampled_from([0, 0, 2])}, OPTIONS)


def _check(result: ll.Result, most: int) -> None:
    assert len(result.losses) <= most
    assert all(np.isfinite(array).all() for array in result.weights.values())
    assert str(result)


def of_loops(backend: str) -> Target:
    """Any spec through ``compile`` or ``attach``; its state goes into the loop of another one, or is refused there."""

    def loop(spec: ll.Spec, other: ll.Spec, steps: int) -> None:
        framework = framework_of(backend)
        make = _graph_loop if backend == "oneflow-graph" else _plain_loop
        with tempfile.TemporaryDirectory() as folder:
            step, parts = make(framework, spec)
            for _ in range(steps):
                step()
            assert len(parts[2].get_last_lr()) > 0
            ll.save_state(Path(folder) / "state", *parts)
            step, parts = make(framework, other)
            ll.load_state(Path(folder) / "state", *parts)
            step()

    return Target(f"loop on {backend}", loop, {"spec": specs, "other": specs, "steps": st.integers(0, 3)})


def _plain_loop(framework: Any, spec: ll.Spec) -> tuple[Callable[[], None], tuple[Any, Any, Any]]:
    model = BUILDERS[framework.__name__]()
    optimizer, scheduler = ll.compile(spec, model, total_steps=4, steps_per_epoch=2)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = model(framework.ones(2, 3, 2, 2)).sum()
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
        scheduler.step()

    return step, (model, optimizer, scheduler)


def _graph_loop(framework: Any, spec: ll.Spec) -> tuple[Callable[[], None], tuple[Any, Any, Any]]:
    model = BUILDERS[framework.__name__]()

    class TrainGraph(framework.nn.Graph):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.scheduler = ll.attach(spec, self, model, total_steps=4, steps_per_epoch=2)

        def build(self, images: Any) -> Any:
            loss = self.model(images).sum()
            loss.backward()
            return loss

    graph = TrainGraph()

    def step() -> None:
        graph(framework.ones(2, 3, 2, 2)).numpy()
        graph.scheduler.step()

    return step, (model, graph, graph.scheduler)


def of_comparisons(backend: str) -> Target:
    """Cases through ``compare``: a backend never trains otherwise than the other framework's."""

    def compare(case: Any) -> None:
        other = "torch-eager" if backend != "torch-eager" else "oneflow-eager"
        options = {"accumulate_steps": case["accumulate_steps"], "ema_decay": case["ema_decay"]}
        spec = ll.Spec.from_dict(case["spec"])
        said = {"data": DATA, "batch_size": 4, "quick": True, "steps": 6, "progress": False, **options}
        comparison = ll.compare(spec, [other, backend], model=BUILDERS, **said)
        assert all(outcome.status != "died" for outcome in comparison.outcomes.values()), str(comparison)
        assert all(pair.verdict.kind != "different" for pair in comparison.pairs), str(comparison)

    return Target(f"compare on {backend}", compare, {"case": cases()})


TARGETS: dict[str, Callable[[str], Target]] = {
    "cases": of_cases,
    "run": of_runs,
    "loop": of_loops,
    "compare": of_comparisons,
}


def fuzz_round(backend: str, examples: Mapping[str, int], number: int, note: str) -> None:
    """Call targets, in a process that may abort.

    Args:
        backend: Which one.
        examples: How many calls of each of ``TARGETS``, by their names.
        number: Of the round; 0 has the same values in every run.
        note: A file that holds the arguments of the call that goes on.
    """
    for name, calls in examples.items():
        target = TARGETS[name](backend)

        def noted(target: Target = target, **arguments: Any) -> Any:
            Path(note).write_text(f"{target.name}: {arguments!r}", encoding="utf-8", errors="backslashreplace")
            return target.call(**arguments)

        hold_once(target._replace(call=noted), calls, number)
