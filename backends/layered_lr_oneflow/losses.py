"""The loss of a batch in OneFlow, eager or in a graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numpy.typing import NDArray

from layered_lr.backend.loss_values import call_loss
from layered_lr.backend.output_checks import check_outputs
from layered_lr.errors import BackendUnavailable, SpecError, Unsupported
from layered_lr.losses import FunctionLoss, LossSettings
from layered_lr.models.nn_modules import framework_of
from layered_lr.printed import name_of
from layered_lr.registry import load_tracer
from layered_lr_oneflow.build_model import build_translated
from layered_lr_oneflow.oneflow_types import Graph, Module, Tensor
from layered_lr_oneflow.operators.softmax import cross_entropy, log_softmax
from layered_lr_oneflow.runtime import flow


def make_loss(loss: LossSettings) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the function that computes the loss of a batch from the logits and what ``place_labels`` gives."""
    if isinstance(loss, FunctionLoss):
        return partial(call_loss, loss.function, name_of(loss.function))
    return _compute_cross_entropy


def add_loss(graph: Graph, loss: LossSettings) -> Callable[[Tensor, Tensor], Tensor]:
    """``make_loss`` for a graph: a module becomes a part of it, so that what it holds is compiled as tensors."""
    if isinstance(loss, FunctionLoss) and isinstance(loss.function, flow.nn.Module):
        graph.loss_module = loss.function
        return partial(call_loss, graph.loss_module, name_of(loss.function))
    return make_loss(loss)


def _compute_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of a batch.

    Args:
        logits: Shape (N, classes).
        targets: Class numbers of shape (N,), for the mean; or ``class_targets.divide_targets``, shape (N, classes), for
            any other form, whose sum is the loss.

    Raises:
        SpecError: There are more outputs than classes under another form than the mean.
    """
    if targets.dim() == 1:
        return cross_entropy(logits, targets)
    check_outputs(logits, targets.shape[1])
    return -(targets * log_softmax(logits, 1)).sum()


def translate_loss(loss: FunctionLoss, outputs: NDArray[Any], targets: NDArray[Any], device: str) -> FunctionLoss:
    """Make a loss of OneFlow from one that is written in torch; OneFlow's own module stays as it is.

    Args:
        loss: The user's.
        outputs: An example of what the model answers, in its dtype.
        targets: An example of the targets.
        device: OneFlow's name of where the model is.

    Raises:
        Unsupported: It cannot be traced, OneFlow cannot compute what it does, or torch is not installed.
        SpecError: It fails on such an example.
    """
    if framework_of(loss.function) == "oneflow":
        return loss
    called = name_of(loss.function)
    try:
        built: Module = build_translated(load_tracer("torch").trace_loss(loss.function, outputs, targets))
    except (Unsupported, SpecError) as error:
        text = str(error).removeprefix("model: ").replace("in the model itself", "in the function itself")
        raise type(error)(f"loss: {called}: {text}") from None
    except (ImportError, BackendUnavailable) as error:
        raise Unsupported(
            f"loss: {called} is translated from torch, which does not work here: {error}. Give a oneflow.nn.Module."
        ) from None
    type(built).__name__ = called
    return loss._replace(function=built.to(device))
