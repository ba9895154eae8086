"""Update rules: every optimizer as ops of OneFlow, for one parameter at a time."""

from __future__ import annotations

from collections.abc import Mapping

from layered_lr import optimizers as data
from layered_lr_oneflow.rules import descent, matrices, moments, squares, steps
from layered_lr_oneflow.rules.base import (
    AnyRule,
    Number,
    RateAndMomentum,
    Scalars,
    SlotStart,
    SlotTensors,
    assign,
    make_slots,
)

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
    data.Adafactor: squares.AdafactorRule,
    data.Muon: matrices.MuonRule,
    data.ASGD: steps.ASGDRule,
    data.Rprop: steps.RpropRule,
}


def make_rule(optimizer: data.Optimizer) -> AnyRule:
    """Make the update rule of an optimizer."""
    return _RULES[type(optimizer)](optimizer)


__all__ = [
    "AnyRule",
    "Number",
    "RateAndMomentum",
    "Scalars",
    "SlotStart",
    "SlotTensors",
    "assign",
    "make_rule",
    "make_slots",
]
