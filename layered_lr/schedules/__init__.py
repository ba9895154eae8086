"""Learning-rate schedules: torch's, and those that users of other libraries look for."""

from layered_lr.arrays import Float64
from layered_lr.schedules.base import FactorSchedule, Schedule, Unit
from layered_lr.schedules.composed import ChainedScheduler, SequentialLR
from layered_lr.schedules.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from layered_lr.schedules.cyclic import CyclicLR
from layered_lr.schedules.decay import (
    Constant,
    ConstantLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from layered_lr.schedules.onecycle import OneCycleLR
from layered_lr.schedules.plateau import ReduceLROnPlateau
from layered_lr.schedules.reaction import Reaction
from layered_lr.schedules.serialise import SCHEDULES, schedule_from_dict, schedule_to_dict
from layered_lr.schedules.user import Function, LambdaLR, MultiplicativeLR, Table
from layered_lr.schedules.warmup import WSD, CosineDecay, InverseSqrt, Warmup

__all__ = [
    "SCHEDULES",
    "WSD",
    "ChainedScheduler",
    "Constant",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CosineDecay",
    "CyclicLR",
    "ExponentialLR",
    "FactorSchedule",
    "Float64",
    "Function",
    "InverseSqrt",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "Reaction",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "Table",
    "Unit",
    "Warmup",
    "schedule_from_dict",
    "schedule_to_dict",
]
