"""What a new optimizer takes over from the optimizer before it, when a phase switches optimizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from layered_lr.arrays import Arrays, DividedArray, Slots
from layered_lr.errors import SpecError
from layered_lr.optimizers import LARS, SGD, Lion, Optimizer

Carry = Literal["nothing", "momentum"]

_MEAN = "exp_avg"  # the running mean of gradients of Adam and others; SGD's momentum_buffer is a running sum
_SUM = "momentum_buffer"


def carry_over(slots: Slots, old: Mapping[str, Optimizer], new: Mapping[str, Optimizer], carry: Carry) -> Slots:
    """Return the slots with which the new optimizer continues.

    An optimizer of the same kind keeps all slots. An optimizer of another kind starts without slots (``"nothing"``), or
    takes over the running gradient (``"momentum"``). Optimizers like Adam keep the mean of the gradients and SGD keeps
    their sum; in the long run the sum is ``(1 - dampening) / (1 - momentum)`` times the mean.

    Args:
        slots: The slots of the old optimizer.
        old: The old optimizer of each parameter, with the hyperparameters of its group.
        new: The new optimizer of each parameter, with the hyperparameters of its group.
        carry: What an optimizer of another kind takes over.

    Raises:
        SpecError: ``"momentum"`` is asked for, but one of the optimizers has no running gradient.
    """
    return {
        name: _carry_over_one(dict(slots.get(name, {})), old[name], new[name], carry) for name in new if name in slots
    }


def complete_slots(slots: Slots, own: Slots) -> Slots:
    """Return slots that fit an optimizer of the same kind with other options.

    Slots that the new options do not use are dropped; slots that are missing start at 0.

    Args:
        slots: The slots so far, by parameter. A parameter without slots stays without.
        own: The slots that the optimizer has for each parameter with its new options.
    """
    return {
        name: {
            slot: slots[name][slot] if slot in slots[name] else np.zeros_like(array) for slot, array in wanted.items()
        }
        for name, wanted in own.items()
        if slots.get(name)
    }


def check_carry(old: Optimizer, new: Optimizer, carry: Carry) -> None:
    """Refuse a switch of optimizers for which ``carry_over`` has no rule.

    Raises:
        SpecError: ``"momentum"`` is asked for, but one of the optimizers has no running gradient.
    """
    if carry == "nothing" or type(old) is type(new):
        return
    if not (_keeps_mean(old) or _keeps_sum(old)) or not (isinstance(new, Lion) or _keeps_sum(new)):
        raise SpecError(
            f"carry='momentum': {type(new).__name__} cannot take over the momentum of {type(old).__name__}. It goes "
            "from an optimizer with betas (such as Adam), or SGD or LARS with momentum, to SGD or LARS with momentum, "
            "or to Lion. In other cases use carry='nothing'."
        )


def _keeps_sum(optimizer: Optimizer) -> bool:
    return isinstance(optimizer, SGD | LARS) and optimizer.momentum > 0


def _keeps_mean(optimizer: Optimizer) -> bool:
    return hasattr(optimizer, "betas")


def _carry_over_one(slots: Arrays, old: Optimizer, new: Optimizer, carry: Carry) -> Arrays:
    if type(old) is type(new):
        return slots
    check_carry(old, new, carry)
    if carry == "nothing" or not slots:
        return {}
    if _MEAN in slots:
        mean = slots[_MEAN]
        if not isinstance(old, Lion) and "step" in slots:  # undo the bias towards 0; Lion's mean is used as it is
            mean = mean / (1 - (old.first_momentum or 0.0) ** float(slots["step"]))
    else:
        mean = slots[_SUM] * _mean_per_sum(old)
    kept = mean if isinstance(new, Lion) else mean / _mean_per_sum(new)
    kept = kept.astype(mean.dtype) if isinstance(kept, DividedArray) else np.asarray(kept, dtype=mean.dtype)
    return {_MEAN if isinstance(new, Lion) else _SUM: kept}


def _mean_per_sum(optimizer: Optimizer) -> float:
    """Return the factor that turns the running sum of SGD or LARS into a mean."""
    momentum, dampening = optimizer.first_momentum or 0.0, float(getattr(optimizer, "dampening", 0.0))
    return (1 - min(momentum, 1 - 1e-6)) / (1 - dampening or 1.0)
