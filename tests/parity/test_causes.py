"""A difference has its cause, from the update on at which it begins; runs that end early are compared."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from benchmarks.certificate.faults import Faulty, Plant, clip_off, rate_from
from benchmarks.certificate.planted import Base, record_reference
from layered_lr.parity.comparison import compared
from layered_lr.parity.disturbance import Disturbance
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.recorder import Recorder, prepare_task
from layered_lr.parity.recording import Recording, record_fully
from layered_lr.parity.task import Task
from layered_lr.parity.verdict import judge
from layered_lr.training.options import RunOptions
from tests.support import parity_faults as faults
from tests.support.models import CLASSES, FEATURES, arrays, mlp

torch = pytest.importorskip("torch")

STEPS = 12
HEAD = [ll.Group("3", lr_scale=3.0, name="head")]
SCHEDULE = ll.CosineAnnealingLR(T_max=STEPS)
SGD = ll.Spec(ll.SGD(0.05, momentum=0.9), HEAD, SCHEDULE)
NESTEROV = ll.Spec(ll.SGD(0.05, momentum=0.9, nesterov=True), HEAD, SCHEDULE)
ADAM = ll.Spec(ll.Adam(1e-2), HEAD, SCHEDULE)
CLIPPED = ll.Spec(ll.SGD(0.1), HEAD, SCHEDULE, clip_grad_norm=0.5)
WARMUP = ll.Spec(ll.SGD(0.05), HEAD, ll.CosineDecay(warmup_steps=3))


def normed() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES))


def task_of(spec: ll.Spec, model: Any = None, **options: Any) -> Task:
    given: Any = {"batch_size": 8, "seed": 0, "device": "cpu", "dropout": 0.0, "max_steps": STEPS, **options}
    return Task(spec, RunOptions(model=model or mlp(torch), data=arrays(), **given), STEPS)


@cache
def base(spec: ll.Spec, parts: int = 1, dtype: str = "float32", model: Any = None) -> Base:
    return record_reference(task_of(spec, model, accumulate_steps=parts, precision=dtype))


def found_by(known: Base, plant: Plant) -> Recording:
    return record_fully(prepare_task(Faulty(plant), known.task, known.start), known.task, known.start)


CASES: dict[str, tuple[ll.Spec, Plant, str, int, str]] = {
    "rate": (SGD, rate_from(8)(1e-6), "rate", 8, "group 'head' moves 0.0001 % farther than it should"),
    "a larger rate": (SGD, rate_from(4)(0.5), "rate", 4, "group 'head' moves 1.5 times as far as it should"),
    "beta2": (ADAM, faults.other_beta2(0.99899), "state", 1, "moves a little otherwise from update 1 on"),
    "momentum": (NESTEROV, faults.momentum_off(1e-6), "state", 0, "moves a little otherwise from the first update on"),
    "group": (SGD, faults.one_in_the_other_group, "rate", 0, "of group 'head', '3.bias' (of 2 parameters) moves 0.333"),
    "warm-up": (WARMUP, faults.rate_above_zero, "rate", 0, "moves where its rate is 0"),
    "said": (
        WARMUP,
        faults.schedule_shifted(1),
        "rate",
        0,
        "the rate of group 'head' is 0.05 at update 0, and should be 0",
    ),
    "clip": (CLIPPED, clip_off(1e-7), "clip", 0, "all groups move 1e-05 % farther than they should"),
}


@pytest.mark.parametrize("name", CASES)
def test_small_faults_of_optimizers(name: str) -> None:
    spec, plant, cause, step, said = CASES[name]
    known = base(spec)
    verdict = judge(known.found, found_by(known, plant), known.rounding, known.plan)
    assert verdict.kind == "different" and verdict.first is not None
    assert (verdict.cause, verdict.first.step) == (cause, step), verdict
    assert said in verdict.explanation, verdict


def test_what_is_accumulated_wrongly_is_no_fault_of_the_forward_pass() -> None:
    known = base(SGD, 2)
    verdict = judge(known.found, found_by(known, faults.parts_summed), known.rounding, known.plan)
    assert verdict.cause == "accumulation" and "batch by batch the updates are the same" in verdict.explanation


@pytest.mark.parametrize("bits", [8, 11], ids=["bfloat16", "TF32"])
def test_float32_that_is_computed_more_coarsely(bits: int) -> None:
    """It was called the same: half of the digits of the loss were right, and in float64 nothing differed."""
    known = base(SGD)
    verdict = judge(known.found, found_by(known, faults.float32_coarse(bits)), known.rounding, known.plan)
    assert (verdict.kind, verdict.cause) == ("different", "forward")
    assert "computes more coarsely than in float32" in verdict.explanation


def test_whole_numbers_among_the_buffers_are_compared() -> None:
    known = base(SGD, model=normed)
    verdict = judge(known.found, found_by(known, faults.uncounted), known.rounding, known.plan)
    assert verdict.first is not None and verdict.first.parameter == "2.num_batches_tracked"
    assert (verdict.cause, verdict.first.difference) == ("forward", STEPS)


@pytest.mark.parametrize("step", [0, 5])
def test_a_backend_whose_loss_is_nan_is_different(step: int) -> None:
    """The comparison ended with an error of NumPy's: rates and norms of the updates before were missing."""
    known = base(SGD)
    other = found_by(known, faults.nan_from(step))
    assert other.run.rates.shape == other.run.grad_norms.shape == (step, 2)
    verdict = judge(known.found, other, known.rounding, known.plan)
    assert verdict.kind == "different" and verdict.first is not None and verdict.first.step == step
    assert f"the loss is nan at step {step}" in verdict.explanation


@pytest.mark.parametrize("rate", [1e4, 1e12, 1e30])
def test_training_that_diverges_is_compared_as_far_as_it_goes(rate: float) -> None:
    """Rounding alone decides how far: the run in float32, that in float64 and the disturbed ones differ in it."""
    known = base(ll.Spec(ll.SGD(rate, momentum=0.9), HEAD))
    recordings = {"torch-eager": known.found, "torch-compile": found_by(known, faults.honest)}
    outcomes = {name: Outcome(name, "ran") for name in recordings}
    found = compared(recordings, outcomes, known.rounding, known.plan, STEPS, known.task.options.to_dict())
    assert found.same
    assert "all the same" in str(found) and len(found.to_html()) > 1000 and found.to_json()


def test_probes_in_float64_are_as_sharp_as_float64() -> None:
    """Their gradients got errors of the last bits of float32: a rate off by 1e-5 was not seen in a quick comparison."""
    known = base(SGD, dtype="float64")
    assert max(float(limits.max()) for limits in known.rounding.probes.values()) < 1e-10
    verdict = judge(known.found, found_by(known, rate_from(10)(1e-9)), known.rounding, known.plan)
    assert (verdict.cause, verdict.first and verdict.first.step) == ("rate", 10)


THAWED = [ll.Phase("3 steps", frozen="head"), ll.Phase()]
STILL = [ll.Phase("3 steps", frozen=["head", "rest"]), ll.Phase()]


@pytest.mark.parametrize("phases", [THAWED, STILL], ids=["a part", "all"])
def test_what_a_first_phase_freezes_is_disturbed_once_it_trains(phases: list[ll.Phase]) -> None:
    """It never was, and where all was frozen the comparison ended with an error."""
    spec = replace(SGD, phases=phases)
    known = base(spec)
    ready = prepare_task(Faulty(faults.honest), known.task, known.start)
    disturbance = Disturbance(np.random.default_rng(0), 100.0, 100.0)
    recorder = Recorder(ready, known.task, disturbance, None, lambda: None)
    assert recorder._frozen == frozenset()
    exact, rounding = known.found.exact, known.rounding.exact
    assert exact is not None and rounding is not None
    names = [array.name for array in exact.layout.arrays]
    head = rounding.weights[:, names.index("3.weight")]
    assert head[4] > 3 * head[3] > 0, "it is disturbed from its first update on"


def test_a_model_that_fails_on_the_batch_is_left_to_the_first_update() -> None:
    """A batch of one image before a batch normalisation ended the process of the comparison."""
    task = task_of(SGD, normed, batch_size=1)
    ready = prepare_task(Faulty(faults.honest), task)
    with pytest.raises(ll.SpecError, match=r"an update on images of shape \(1, .* failed"):
        record_fully(ready, task, ready.backend.state(ready.model))
