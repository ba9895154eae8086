"""Update rules: every optimizer as ops of OneFlow, for one parameter at a time."""

from __future__ import annotations

from collections.abc import Mapping

from layered_lr import optimizers as data
from layered_lr_oneflow.rules import descent, moments, squares
from layered_lr_oneflow.rules.base import AnyRule, Number, RateAndMomentum, Scalars, SlotTensors, assign

_RULES: Mapping[type[data.Optimizer], type[AnyRule]] = {
    data.SGD: descent.SGDRule,
    data.LARS: descent.LARSRule,
    data.Adam: moments.AdamRule,
    data.AdamW: moments.AdamRule,
    data.NAdam: moments.NAdamRule,
    data.RAdam: moments.RAdamRule,
    data.Adamax: moments.AdamaxRule,
    data.LAMB: moments.LAMBRule,
    data.Lion: moments.LionRule,
    data.RMSprop: squares.RMSpropRule,
    data.Adagrad: squares.AdagradRule,
    data.Adadelta: squares.AdadeltaRule,
}


def make_rule(optimizer: data.Optimizer) -> AnyRule:
    """Make the update rule of an optimizer."""
    return _RULES[type(optimizer)](optimizer)


__all__ = ["AnyRule", "Number", "RateAndMomentum", "Scalars", "SlotTensors", "assign", "make_rule"]
