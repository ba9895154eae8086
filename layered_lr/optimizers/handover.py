"""What a new optimizer takes over from the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Slots
from layered_lr.errors import SpecError
from layered_lr.optimizers import LARS, SGD, Lion, Optimizer

Carry = Literal["nothing", "momentum"]

_MEAN = "exp_avg"  # a running mean of gradients; SGD's `momentum_buffer` is a running sum
_SUM = "momentum_buffer"


def carried(slots: Slots, old: Mapping[str, Optimizer], new: Mapping[str, Optimizer], carry: Carry) -> Slots:
    """The slots that each parameter goes on with.

    An optimizer of the same kind goes on as if nothing had happened. One of another kind starts anew
    (``"nothing"``), or takes over the running gradient (``"momentum"``): Adam and its kin keep its mean and SGD its
    sum, which is ``(1 - dampening) / (1 - momentum)`` times the mean in the long run.

    Args:
        slots: Of the optimizer before, by parameter and torch's name of the slot.
        old: Each parameter's optimizer before, with its own hyperparameters.
        new: Likewise from now on.
        carry: What goes over to an optimizer of another kind.

    Raises:
        SpecError: ``"momentum"`` between optimizers that have nothing of the kind in common.
    """
    return {name: _of_one(dict(slots.get(name, {})), old[name], new[name], carry) for name in new if name in slots}


def completed(slots: Slots, own: Slots) -> Slots:
    """The slots that an optimizer of the same kind with other options goes on with.

    What these do without is left out, what is missing is 0.

    Args:
        slots: By parameter; empty for one that begins anew.
        own: What the optimizer keeps of each, with these options.
    """
    return {
        name: {slot: np.asarray(slots[name].get(slot, np.zeros_like(array))) for slot, array in wanted.items()}
        for name, wanted in own.items()
        if slots.get(name)
    }


def check_carry(old: Optimizer, new: Optimizer, carry: Carry) -> None:
    """Refuse what ``carried`` cannot do.

    Raises:
        SpecError: See ``carried``.
    """
    if carry == "nothing" or type(old) is type(new):
        return
    if not (_keeps_mean(old) or _keeps_sum(old)) or not (isinstance(new, Lion) or _keeps_sum(new)):
        raise SpecError(
            f"carry='momentum': {type(new).__name__} cannot take over the momentum of "
            f"{type(old).__name__}: it goes from "
            "Adam and its kin, SGD, LARS or Lion to SGD, LARS or Lion. Elsewhere use carry='nothing'."
        )


def _keeps_sum(optimizer: Optimizer) -> bool:
    return isinstance(optimizer, SGD | LARS) and optimizer.momentum > 0


def _keeps_mean(optimizer: Optimizer) -> bool:
    return hasattr(optimizer, "betas")


def _of_one(slots: dict[str, NDArray[Any]], old: Optimizer, new: Optimizer, carry: Carry) -> dict[str, NDArray[Any]]:
    if type(old) is type(new):
        return slots
    check_carry(old, new, carry)
    if carry == "nothing" or not slots:
        return {}
    if _MEAN in slots:
        mean = slots[_MEAN]
        if not isinstance(old, Lion) and "step" in slots:  # Lion's mean is not corrected
            mean = mean / (1 - old.betas[0] ** float(slots["step"]))  # type: ignore[attr-defined]
    else:
        mean = slots[_SUM] * _mean_of_sum(old)
    kept = mean if isinstance(new, Lion) else mean / _mean_of_sum(new)
    return {_MEAN if isinstance(new, Lion) else _SUM: np.asarray(kept, dtype=mean.dtype)}


def _mean_of_sum(optimizer: Any) -> float:
    """What the running sum is multiplied with to be a mean."""
    return (1 - min(optimizer.momentum, 1 - 1e-6)) / (1 - optimizer.dampening or 1.0)  # type: ignore[no-any-return]
