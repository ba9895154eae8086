"""How torch applies a plan's rates, and which implementation of its optimizer makes the updates; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from layered_lr.errors import Unsupported
from layered_lr.optimizers import (
    ASGD,
    LAMB,
    LARS,
    LBFGS,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Muon,
    Optimizer,
    SparseAdam,
)
from layered_lr.plans.lowering import Lowering
from layered_lr.plans.plan import Plan

Implementation: TypeAlias = Literal["fused", "foreach", "for-loop"]

OWN: Final = (LAMB, LARS, Lion)
"""Optimizers that this package has and torch lacks."""

ONE_WAY: Final = (Muon, SparseAdam, LBFGS)
"""Optimizers of which torch has one implementation: they take neither ``foreach`` nor ``fused``."""


def is_own(optimizer: Optimizer) -> bool:
    """Whether this package updates by a class of its own, also where torch has one of the name."""
    return isinstance(optimizer, OWN) or (isinstance(optimizer, Muon) and optimizer.flatten)


def lower(plan: Plan, timeline: Sequence[Plan] = ()) -> Iterator[Lowering]:
    """Say for each group how its rates are applied.

    torch's optimizers know no ``lr_scale``: the scheduler sets each group's rate, already scaled, before every update.

    Raises:
        Unsupported: The optimizer needs a closure.
    """
    floats = [p.dtype for p in plan.parameters if p.requires_grad and "int" not in p.dtype]
    for group in plan.groups:
        if isinstance(group.optimizer, LBFGS):
            raise Unsupported(
                "LBFGS calls the model several times for each update, which a run does not do. Use ll.compile, in a "
                "loop of your own that gives optimizer.step a closure, or another optimizer."
            )
        package = "layered_lr_torch" if is_own(group.optimizer) else "torch.optim"
        update = f"{package}.{type(group.optimizer).__name__}{_describe_implementation(group.optimizer, floats)}"
        yield Lowering("host", "folded", update=update)


def choose_implementation(optimizer: Optimizer, device: str, dtypes: Iterable[str] = ()) -> Implementation | None:
    """Choose the fastest implementation that torch has of an optimizer, unless the user chose one.

    Its implementations round differently. In float32 that is one last bit; with a dtype that somebody chose, the
    updates are bitwise those of an optimizer that was made without a choice.

    Args:
        optimizer: Its ``foreach`` and ``fused`` are the user's choice; None leaves the choice to this function.
        device: A torch device's type, such as ``"cpu"``.
        dtypes: Of the floating parameters.

    Returns:
        None where torch chooses: with other dtypes than float32, on devices for which it has only some
        implementations, and for optimizers of which it has only one.
    """
    if isinstance(optimizer, ONE_WAY):
        return None
    fused = getattr(optimizer, "fused", None)
    if optimizer.foreach is not None or fused is not None:
        return "fused" if fused else "foreach" if optimizer.foreach else "for-loop"
    if any(dtype != "float32" for dtype in dtypes):
        return None
    if device == "cuda":  # torch's own order; Adagrad's fused kernel came to CUDA after torch 2.4
        return "fused" if isinstance(optimizer, SGD | Adam | AdamW) else "foreach"
    if device == "cpu":
        return _choose_on_cpu(optimizer)
    return None


def _choose_on_cpu(optimizer: Optimizer) -> Implementation:
    """Choose by measurement.

    Milliseconds of an update of MobileNetV2 (158 parameters in two groups), the least of 40, torch 2.14 on two cores:
    for-loop, foreach, fused. SGD with momentum 3.2, 3.2, 1.5; Adam 8.3, 7.3, 2.3; AdamW 8.4, 8.2, 2.4;
    Adagrad 5.2, 5.3, 2.0; NAdam 8.5, 8.0; RAdam 10.9, 8.1; Adamax 6.1, 5.4; RMSprop 5.6, 5.0; Adadelta 8.8, 9.9.
    """
    if isinstance(optimizer, SGD | Adam | AdamW | Adagrad):
        return "fused"
    if isinstance(optimizer, ASGD):  # whose foreach computes the decay of float64 weights in float32
        return "for-loop"
    return "for-loop" if isinstance(optimizer, Adadelta | Adafactor) else "foreach"


def _describe_implementation(optimizer: Optimizer, dtypes: Sequence[str]) -> str:
    if isinstance(optimizer, ONE_WAY):
        return ""
    cpu, cuda = (choose_implementation(optimizer, device, dtypes) for device in ("cpu", "cuda"))
    if cpu is None:
        return ", torch's default"
    return f", {cpu}" if cpu == cuda else f", {cpu} on a CPU, {cuda} on CUDA"
