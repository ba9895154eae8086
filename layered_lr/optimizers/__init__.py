"""Optimizers as plain values: names, defaults and bounds are torch's."""

from collections.abc import Mapping

from layered_lr.optimizers.base import Betas, Coefficients, EpsPair, Etas, Finite, FusedOptimizer, Optimizer, StepSizes
from layered_lr.optimizers.descent import LARS, SGD
from layered_lr.optimizers.matrices import AdjustLr, Muon, NsSteps
from layered_lr.optimizers.moments import LAMB, Adam, Adamax, AdamW, Lion, NAdam, RAdam
from layered_lr.optimizers.squares import Adadelta, Adafactor, Adagrad, RMSprop
from layered_lr.optimizers.steps import ASGD, Rprop
from layered_lr.optimizers.torch_only import LBFGS, SparseAdam

# The optimizers that a TOML table can name with ``type = "..."``.
OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    cls.__name__: cls
    for cls in (
        *(SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta, LAMB, LARS, Lion),
        *(Muon, Adafactor, ASGD, Rprop, SparseAdam, LBFGS),
    )
}

__all__ = [
    "ASGD",
    "LAMB",
    "LARS",
    "LBFGS",
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "AdjustLr",
    "Betas",
    "Coefficients",
    "EpsPair",
    "Etas",
    "Finite",
    "FusedOptimizer",
    "Lion",
    "Muon",
    "NAdam",
    "NsSteps",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "StepSizes",
]
