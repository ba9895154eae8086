"""One spec of layer groups, ``lr`` and ``lr_scale``, compiled to torch and OneFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layered_lr.api import attach as attach
    from layered_lr.api import compare as compare
    from layered_lr.api import compile as compile
    from layered_lr.api import plan as plan
    from layered_lr.api import resume as resume
    from layered_lr.api import run as run
    from layered_lr.data import Dataset as Dataset
    from layered_lr.data import load_dataset as load_dataset
    from layered_lr.errors import BackendUnavailable as BackendUnavailable
    from layered_lr.errors import CheckpointError as CheckpointError
    from layered_lr.errors import DataError as DataError
    from layered_lr.errors import LayeredLRError as LayeredLRError
    from layered_lr.errors import SpecError as SpecError
    from layered_lr.errors import TrainingDiverged as TrainingDiverged
    from layered_lr.errors import Unsupported as Unsupported
    from layered_lr.models.matching import Parameter as Parameter
    from layered_lr.optimizers import LAMB as LAMB
    from layered_lr.optimizers import LARS as LARS
    from layered_lr.optimizers import SGD as SGD
    from layered_lr.optimizers import Adadelta as Adadelta
    from layered_lr.optimizers import Adagrad as Adagrad
    from layered_lr.optimizers import Adam as Adam
    from layered_lr.optimizers import Adamax as Adamax
    from layered_lr.optimizers import AdamW as AdamW
    from layered_lr.optimizers import Lion as Lion
    from layered_lr.optimizers import NAdam as NAdam
    from layered_lr.optimizers import Optimizer as Optimizer
    from layered_lr.optimizers import RAdam as RAdam
    from layered_lr.optimizers import RMSprop as RMSprop
    from layered_lr.own_loop import load_state as load_state
    from layered_lr.own_loop import save_state as save_state
    from layered_lr.parity.comparison import Comparison as Comparison
    from layered_lr.plans.diff import PlanDiff as PlanDiff
    from layered_lr.plans.plan import Plan as Plan
    from layered_lr.plans.plan import PlanGroup as PlanGroup
    from layered_lr.plans.plan import resolve as resolve
    from layered_lr.registry import BackendStatus as BackendStatus
    from layered_lr.registry import backends as backends
    from layered_lr.schedules import WSD as WSD
    from layered_lr.schedules import ChainedScheduler as ChainedScheduler
    from layered_lr.schedules import Constant as Constant
    from layered_lr.schedules import ConstantLR as ConstantLR
    from layered_lr.schedules import CosineAnnealingLR as CosineAnnealingLR
    from layered_lr.schedules import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
    from layered_lr.schedules import CosineDecay as CosineDecay
    from layered_lr.schedules import CyclicLR as CyclicLR
    from layered_lr.schedules import ExponentialLR as ExponentialLR
    from layered_lr.schedules import Function as Function
    from layered_lr.schedules import InverseSqrt as InverseSqrt
    from layered_lr.schedules import LambdaLR as LambdaLR
    from layered_lr.schedules import LinearLR as LinearLR
    from layered_lr.schedules import MultiplicativeLR as MultiplicativeLR
    from layered_lr.schedules import MultiStepLR as MultiStepLR
    from layered_lr.schedules import OneCycleLR as OneCycleLR
    from layered_lr.schedules import PolynomialLR as PolynomialLR
    from layered_lr.schedules import ReduceLROnPlateau as ReduceLROnPlateau
    from layered_lr.schedules import Schedule as Schedule
    from layered_lr.schedules import SequentialLR as SequentialLR
    from layered_lr.schedules import StepLR as StepLR
    from layered_lr.schedules import Table as Table
    from layered_lr.schedules import Warmup as Warmup
    from layered_lr.spec.groups import Group as Group
    from layered_lr.spec.phases import Phase as Phase
    from layered_lr.spec.spec import Spec as Spec
    from layered_lr.training.recipe import Recipe as Recipe
    from layered_lr.training.recipe import load_recipe as load_recipe
    from layered_lr.training.recipe import ready_recipes as ready_recipes
    from layered_lr.training.result import Result as Result

__version__ = "0.1.0"

# Where each public name lives. They are imported when they are asked for, so that importing this package costs
# nothing, not even NumPy.
_HOMES = {
    "layered_lr.api": (
        "attach",
        "compare",
        "compile",
        "plan",
        "resume",
        "run",
    ),
    "layered_lr.data": (
        "Dataset",
        "load_dataset",
    ),
    "layered_lr.plans.diff": ("PlanDiff",),
    "layered_lr.errors": (
        "BackendUnavailable",
        "CheckpointError",
        "DataError",
        "LayeredLRError",
        "SpecError",
        "TrainingDiverged",
        "Unsupported",
    ),
    "layered_lr.spec.groups": ("Group",),
    "layered_lr.own_loop": (
        "load_state",
        "save_state",
    ),
    "layered_lr.models.matching": ("Parameter",),
    "layered_lr.optimizers": (
        "LAMB",
        "LARS",
        "SGD",
        "AdamW",
        "Adadelta",
        "Adagrad",
        "Adam",
        "Adamax",
        "Lion",
        "NAdam",
        "Optimizer",
        "RAdam",
        "RMSprop",
    ),
    "layered_lr.parity.comparison": ("Comparison",),
    "layered_lr.plans.plan": (
        "Plan",
        "PlanGroup",
        "resolve",
    ),
    "layered_lr.training.recipe": (
        "Recipe",
        "load_recipe",
        "ready_recipes",
    ),
    "layered_lr.registry": (
        "BackendStatus",
        "backends",
    ),
    "layered_lr.training.result": ("Result",),
    "layered_lr.schedules": (
        "ChainedScheduler",
        "Constant",
        "ConstantLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CosineDecay",
        "CyclicLR",
        "ExponentialLR",
        "Function",
        "InverseSqrt",
        "LambdaLR",
        "LinearLR",
        "MultiStepLR",
        "MultiplicativeLR",
        "OneCycleLR",
        "PolynomialLR",
        "ReduceLROnPlateau",
        "Schedule",
        "SequentialLR",
        "StepLR",
        "Table",
        "WSD",
        "Warmup",
    ),
    "layered_lr.spec.phases": ("Phase",),
    "layered_lr.spec.spec": ("Spec",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "LAMB",
    "LARS",
    "SGD",
    "WSD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BackendStatus",
    "BackendUnavailable",
    "ChainedScheduler",
    "CheckpointError",
    "Comparison",
    "Constant",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CosineDecay",
    "CyclicLR",
    "DataError",
    "Dataset",
    "ExponentialLR",
    "Function",
    "Group",
    "InverseSqrt",
    "LambdaLR",
    "LayeredLRError",
    "LinearLR",
    "Lion",
    "MultiStepLR",
    "MultiplicativeLR",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "Parameter",
    "Phase",
    "Plan",
    "PlanDiff",
    "PlanGroup",
    "PolynomialLR",
    "RAdam",
    "RMSprop",
    "Recipe",
    "ReduceLROnPlateau",
    "Result",
    "Schedule",
    "SequentialLR",
    "Spec",
    "SpecError",
    "StepLR",
    "Table",
    "TrainingDiverged",
    "Unsupported",
    "Warmup",
    "attach",
    "backends",
    "compare",
    "compile",
    "load_dataset",
    "load_recipe",
    "plan",
    "ready_recipes",
    "resolve",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name == "phases":  # a module: `ll.phases.head_first(1)`
        return importlib.import_module("layered_lr.spec.phases")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'layered_lr' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
