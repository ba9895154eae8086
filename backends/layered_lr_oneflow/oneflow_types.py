"""Names for the types of OneFlow's values. OneFlow has no types of its own: for mypy each of these is ``Any``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A ``oneflow.Tensor``: eager, or one that stands for it in a graph's trace."""

Module: TypeAlias = Any
"""A ``oneflow.nn.Module``."""

Graph: TypeAlias = Any
"""A ``oneflow.nn.Graph``."""

NativeOptimizer: TypeAlias = Any
"""A ``oneflow.optim.Optimizer``."""

NativeScheduler: TypeAlias = Any
"""A scheduler of ``oneflow.optim.lr_scheduler``."""

NativeParamGroup: TypeAlias = Any
"""A param group as OneFlow's optimizers hold it: a mapping of options, with ``parameters``."""

TensorType: TypeAlias = Any
"""A ``oneflow.dtype``, such as ``oneflow.float32``."""

Device: TypeAlias = Any
"""A ``oneflow.device``, or its name."""

Message: TypeAlias = Any
"""A protobuf message of a graph's job."""

Options: TypeAlias = dict[str, Any]
"""A param group as it is given to an optimizer: hyperparameters by name, and ``params``."""

LazyLookup: TypeAlias = Callable[[Tensor, str], Tensor]
"""From an eager tensor, and a name for error messages, to the tensor that stands for it in a graph's trace."""

Closure: TypeAlias = Callable[[], Any]
"""What a user may give to ``optimizer.step``: it evaluates the model once more and returns the loss."""
