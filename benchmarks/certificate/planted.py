"""Planted faults: is each found, with the right cause, group and step, and from which size on?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias

import layered_lr as ll
from benchmarks.certificate import faults
from benchmarks.certificate.faults import Faulty, Plant
from benchmarks.certificate.honest import images_of
from benchmarks.certificate.models import builder
from layered_lr.backend.loading import load_backend
from layered_lr.parity.recorder import prepare_task
from layered_lr.parity.recording import Recording, record_fully
from layered_lr.parity.rounding import Rounding, measure_rounding
from layered_lr.parity.task import Task
from layered_lr.parity.verdict import Verdict, judge
from layered_lr.plans.plan import Plan
from layered_lr.training.options import RunOptions

Judge: TypeAlias = Literal["float32", "float64"]
"""What judges: the runs in float32 alone, or beside them those in float64, as ``compare`` does it."""

STEPS, IN_EPOCH = 30, 6
HEAD = ll.Group(["head", "classifier"], lr_scale=3.0, name="head")
ADAMW = ll.Spec(ll.AdamW(3e-3, weight_decay=0.05), [HEAD], ll.CosineAnnealingLR(T_max=40), clip_grad_norm=0.5)
SGD = ll.Spec(ll.SGD(0.03, momentum=0.9, weight_decay=1e-3), [HEAD], ll.CosineAnnealingLR(T_max=40))
NET = "convolution without bias before BatchNorm"


@dataclass(frozen=True)
class Fault:
    """A fault that a backend could have.

    Args:
        name: In words, with its size.
        make: Makes it in a size.
        size: The one that has to be found.
        cause: The cause that the verdict has to name.
        spec: What is trained with.
        group: The group that the verdict has to name; None where it concerns all.
        step: The update that it has to name.
        has_sizes: Whether smaller ones make sense.
        model: A kind of ``models.KINDS``.
        steps: How many updates to compare.
        options: Of the run.
    """

    name: str
    make: Callable[[float], Plant]
    size: float
    cause: str
    spec: ll.Spec = ADAMW
    group: str | None = None
    step: int = 0
    has_sizes: bool = True
    model: str = NET
    steps: int = STEPS
    options: tuple[tuple[str, Any], ...] = ()


FAULTS = [
    Fault("a rate off by 1e-4 from step 20 on", faults.rate_from(20), 1e-4, "rate", SGD, "head", 20),
    Fault("Adam's eps 1e-7 for 1e-8", faults.other_eps, 9.0, "state"),
    Fault("bias correction off by one", faults.bias_correction_late, 1.0, "state", has_sizes=False),
    Fault("coupled for decoupled decay", faults.coupled_decay, 1.0, "decay", has_sizes=False),
    Fault("EMA 0.9989 for 0.999", faults.other_average, 1e-4, "average", step=1, options=(("ema_decay", 0.999),)),
    Fault("label smoothing 1e-3", faults.label_smoothing, 1e-3, "forward", SGD),
    Fault("one image mirrored at step 5", faults.image_mirrored(5), 1.0, "data", SGD, step=5, has_sizes=False),
    Fault("BatchNorm's momentum 0.11", faults.norm_momentum, 0.01, "forward", SGD, "buffers"),
    Fault("BatchNorm's eps 2e-5", faults.norm_eps, 1e-5, "forward", SGD),
    Fault("the clip 1 % off", faults.clip_off, 0.01, "clip"),
    Fault(
        "an epoch's last batch dropped", faults.last_batch_dropped(IN_EPOCH), 1.0, "data", SGD, step=5, has_sizes=False,
    ),
    Fault("a gain of 1.0001 in a layer", faults.gain, 1e-4, "forward", SGD, model="GroupNorm"),
    Fault(
        "dropout masks shifted by a step", faults.masks_shifted, 1.0, "forward", SGD, has_sizes=False,
        model="MobileNetV2", steps=2, options=(("dropout", 0.2),),
    ),
]  # fmt: skip


class Base(NamedTuple):
    """The honest side of a comparison."""

    task: Task
    plan: Plan
    start: Any
    found: Recording
    rounding: Rounding


@cache
def base_of(spec: ll.Spec, model: str, steps: int, options: tuple[tuple[str, Any], ...], judge_in: Judge) -> Base:
    """The honest side of a fault's comparison; faults with the same one share it."""
    arguments: dict[str, Any] = {"dropout": 0.0, **dict(options)}
    data: Any = "digits" if model == "MobileNetV2" else images_of(1)
    chosen = RunOptions(
        model=builder(model, "torch"), data=data, max_steps=steps, batch_size=8, seed=1, device="cpu", **arguments
    )
    return record_reference(Task(spec, chosen, steps), float64=judge_in == "float64")


def record_reference(task: Task, float64: bool = True) -> Base:
    """Record ``torch-eager``, and measure what rounding explains.

    Args:
        task: What to run.
        float64: Whether it is recorded in float64 too.
    """
    backend = load_backend("torch-eager", "cpu")
    ready = prepare_task(backend, task)
    start = backend.state(ready.model)
    found = record_fully(ready, task, start, float64=float64)
    return Base(task, ready.plan, start, found, measure_rounding(backend, task, found, start))


def verdict_on(fault: Fault, size: float, judge_in: Judge) -> Verdict:
    """What the certificate says of a backend with the fault."""
    base = base_of(fault.spec, fault.model, fault.steps, fault.options, judge_in)
    ready = prepare_task(Faulty(fault.make(size)), base.task, base.start)
    found = record_fully(ready, base.task, base.start, float64=judge_in == "float64")
    return judge(base.found, found, base.rounding, base.plan)


def is_found(fault: Fault, verdict: Verdict) -> bool:
    """Whether the verdict names the fault's cause, and its step and group."""
    if verdict.kind != "different" or verdict.first is None:
        return False
    right_group = fault.group is None or verdict.first.group == fault.group
    return verdict.cause == fault.cause and verdict.first.step == fault.step and right_group


def smallest_found(fault: Fault, judge_in: Judge, least: float = 1e-13) -> float | None:
    """The smallest size, a tenth at a time, that is still called different; None where not even its own size is."""
    size, found = fault.size, None
    while size >= least and verdict_on(fault, size, judge_in).kind == "different":
        found = size
        if not fault.has_sizes:
            break
        size /= 10
    return found


def row_of(fault: Fault) -> dict[str, Any]:
    """What is known of a fault, as a plain table."""
    verdict = verdict_on(fault, fault.size, "float64")
    return {
        "fault": fault.name,
        "size": fault.size,
        "has_sizes": fault.has_sizes,
        "found": is_found(fault, verdict),
        "cause": verdict.cause,
        "step": None if verdict.first is None else verdict.first.step,
        "group": None if verdict.first is None else verdict.first.group,
        "explanation": verdict.explanation,
        "smallest": {judge_in: smallest_found(fault, judge_in) for judge_in in ("float32", "float64")},
    }
