"""Refuses gradients of gradients, such as a gradient penalty's, where OneFlow would compute them.

OneFlow 0.9 has them of many operators only (batch normalisation, slices, lookups and others have none), and some are
wrong without a word: where a weight is used by two operators, and of PReLU's slope.
"""

from __future__ import annotations

from typing import Any

from layered_lr.errors import Unsupported
from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.runtime import flow


def watch_inputs(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let the gradient of each input raise ``Unsupported`` where it is itself to be differentiated.

    Args:
        inputs: Of a model. Usually none of them has a gradient, and nothing is done.

    Returns:
        What to give to the model instead.
    """
    return tuple(_watch(each * 1) if each.requires_grad and not each.is_lazy else each for each in inputs)


def watch_result(result: Any) -> None:
    """Do the same for the gradient of what an operator gives, or the model.

    A parameter itself is left out: it would keep a hook of each pass.
    """
    if isinstance(result, flow.Tensor) and result.requires_grad and not (result.is_lazy or result.is_leaf):
        _watch(result)


def _watch(tensor: Tensor) -> Tensor:
    tensor.register_hook(_check_gradient)
    return tensor


def _check_gradient(gradient: Tensor) -> None:
    if gradient.requires_grad:  # only where create_graph is true
        raise Unsupported(
            "model: a gradient of gradients (create_graph=True) of a translated model. OneFlow 0.9 computes some of "
            "them wrongly, and has none of many operators. Compute such a penalty on a torch backend."
        )
