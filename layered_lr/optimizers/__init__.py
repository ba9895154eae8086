"""Optimizers as plain values: names, defaults and bounds are torch's."""

from collections.abc import Mapping

from layered_lr.optimizers.base import Betas, Finite, FusedOptimizer, Optimizer
from layered_lr.optimizers.descent import LARS, SGD
from layered_lr.optimizers.moments import LAMB, Adam, Adamax, AdamW, Lion, NAdam, RAdam
from layered_lr.optimizers.squares import Adadelta, Adagrad, RMSprop

# The optimizers that a TOML table can name with ``type = "..."``.
OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    cls.__name__: cls for cls in (SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta, LAMB, LARS, Lion)
}

__all__ = [
    "LAMB",
    "LARS",
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Betas",
    "Finite",
    "FusedOptimizer",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
]
