"""The certificate on models of many kinds: honest twins are the same, faults planted in a backend are found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from benchmarks.certificate.faults import Faulty
from benchmarks.certificate.figures import upper_bound
from benchmarks.certificate.honest import OPTIMIZERS, images_of, spec_of, task_of, verdicts_of
from benchmarks.certificate.models import KINDS, builder
from benchmarks.certificate.planted import FAULTS, SGD, Fault, base_of, is_found, verdict_on
from layered_lr.backend.loading import load_backend
from layered_lr.parity.inner_rounding import rounds_inside
from layered_lr.parity.recorder import prepare_task, record
from layered_lr.parity.recording import record_fully
from layered_lr.parity.rounding import measure_rounding
from layered_lr.parity.task import Task
from layered_lr.parity.verdict import judge, judged
from layered_lr.training.options import RunOptions
from tests.support.old_torch import torch_release
from tests.support.widths import keep_some

SMALL = [kind for kind, build in KINDS.items() if build is not None]
BIASED = "convolution with bias before BatchNorm"


@pytest.fixture(autouse=True)
def one_thread(torch: Any) -> Iterator[None]:
    """More of them only wait for each other at this size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("number", keep_some(range(len(SMALL)), lambda number: number % 2 == 0))
def test_honest_twins_in_two_frameworks_are_the_same(torch: Any, oneflow: Any, number: int) -> None:
    kind, optimizer = list(SMALL)[number], list(OPTIMIZERS)[number % 4]
    rows = list(verdicts_of(kind, optimizer, 1, ("torch-eager", "oneflow-eager"), "float32"))
    assert [(row["verdict"], row["judged"]) for row in rows] == [("same within rounding", "float64")], rows


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found_with_its_cause_group_and_step(torch: Any, fault: Fault) -> None:
    if fault.name == "coupled for decoupled decay" and torch_release() < (2, 7):
        pytest.skip("the AdamW of this torch has no switch for it, so that the fault cannot be planted")
    verdict = verdict_on(fault, fault.size, "float64")
    assert is_found(fault, verdict), verdict


def test_in_float64_a_relative_millionth_stands_out(torch: Any) -> None:
    small = {fault.name: fault for fault in FAULTS}
    for name, size in (("a rate off by 1e-4 from step 20 on", 1e-6), ("a gain of 1.0001 in a layer", 1e-6)):
        verdict = verdict_on(small[name], size, "float64")
        assert verdict.kind == "different" and verdict.first is not None and verdict.first.dtype == "float64"
    assert verdict_on(small["a gain of 1.0001 in a layer"], 1e-6, "float32").kind != "different"


def test_of_a_bias_before_a_normalisation_nothing_can_be_told(torch: Any, oneflow: Any) -> None:
    found, start = [], None
    for name in ("torch-eager", "oneflow-eager"):
        backend, task = load_backend(name, "cpu"), task_of(BIASED, "Lion", 2, name, "float32")
        ready = prepare_task(backend, task, start)
        start = backend.state(ready.model) if start is None else start
        found.append(record_fully(ready, task, start))
    task = task_of(BIASED, "Lion", 2, "torch-eager", "float32")
    runs = judged(*found, measure_rounding(load_backend("torch-eager", "cpu"), task, found[0], start))
    until = dict(zip((array.name for array in runs.one.layout.arrays), runs.until.arrays.tolist(), strict=True))
    assert until["c1.bias"] == until["c2.bias"] == 0
    assert until["n1.running_mean"] <= 2, "which follows the bias"
    assert all(until[name] > 12 for name in ("c1.weight", "n1.weight", "n1.bias", "head.bias", "n2.running_var"))


def test_a_fault_in_float32_alone_is_found_where_it_is_no_rounding(torch: Any) -> None:
    def lossy(session: Any) -> None:
        if session.dtype == torch.float32 and hasattr(session.model, "head"):
            session.model.head.register_forward_hook(lambda module, given, answer: answer * 1.02)

    base = base_of(SGD, "GroupNorm", 6, (), "float64")
    found = record_fully(prepare_task(Faulty(lossy), base.task, base.start), base.task, base.start)
    verdict = judge(base.found, found, base.rounding, base.plan)
    assert (verdict.kind, verdict.cause) == ("different", "forward")
    assert "in float32 alone" in verdict.explanation


def scaled_in_float32(answer: Any) -> Any:
    """A norm that takes the scale alone in float32: the loss follows small changes all the same."""
    scale = (answer.float().square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    return answer * scale.to(answer.dtype)


CASTS: dict[str, Any] = {
    "none": None,
    "x.float() inside": lambda answer: answer.float().to(answer.dtype),
    "a scale in float32": scaled_in_float32,
}


@pytest.mark.parametrize("name", CASTS)
def test_a_model_that_rounds_to_float32_inside_is_noticed(torch: Any, name: str) -> None:
    cast = CASTS[name] is not None

    def make() -> Any:
        model = builder("attention with LayerNorm", "torch")()
        if cast:
            model.norm.register_forward_hook(lambda module, given, answer: CASTS[name](answer))
        return model

    task = task_of("attention with LayerNorm", "SGD", 1, "torch-eager", "float32")
    task = replace(task, options=replace(task.options, model=make))
    backend = load_backend("torch-eager", "cpu")
    ready = prepare_task(backend, task)
    start = backend.state(ready.model)
    found = record_fully(ready, task, start)
    assert found.exact is not None
    assert rounds_inside(backend, task.in_float64(), found.exact, start) is cast
    rounding = measure_rounding(backend, task, found, start)
    assert (rounding.exact is None) is cast
    assert judge(found, found, rounding, ready.plan).kind == "same bitwise"


def resumable(backend: str, resume_at: int | None) -> Task:
    """A run with phases, a plateau, accumulation and a moving average."""
    phases = [ll.Phase(3, trained="head"), ll.Phase(6, frozen="head"), ll.Phase()]
    spec = replace(spec_of("AdamW", 1), phases=phases, schedule=ll.ReduceLROnPlateau(patience=0))
    framework = "torch" if backend.startswith("torch") else "oneflow"
    options = RunOptions(
        model=builder("residual", framework), data=images_of(3), backend=backend, max_steps=9, batch_size=8, seed=3,
        dropout=0.0, device="cpu", accumulate_steps=2, ema_decay=0.9,
    )  # fmt: skip
    return Task(spec, options, 9, resume_at=resume_at)


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-eager"])
@pytest.mark.parametrize("at", [4, 6])
def test_a_run_that_is_resumed_in_its_middle_is_recorded_bitwise(torch: Any, oneflow: Any, name: str, at: int) -> None:
    """In the middle of an epoch, which has three updates, and at its end, through a checkpoint's files."""
    backend = load_backend(name, "cpu")
    whole, resumed = (
        record(prepare_task(backend, task), task) for task in (resumable(name, None), resumable(name, at))
    )
    assert np.array_equal(whole.digests, resumed.digests)
    assert np.array_equal(whole.losses, resumed.losses)
    assert np.array_equal(whole.rates, resumed.rates)


def test_the_bound_of_the_false_alarm_rate_is_the_exact_one() -> None:
    assert upper_bound(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert upper_bound(0, 1) == pytest.approx(0.95)
    assert upper_bound(1, 2) == pytest.approx(0.95**0.5 + (1 - 0.95**0.5), rel=0.1)
