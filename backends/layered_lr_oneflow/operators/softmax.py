"""Softmax, its logarithm and cross-entropy.

In float32 OneFlow 0.9 computes them with oneDNN, whose exponential is 3e-6 off, twenty times as far as torch's; and a
NaN among an image's logits leaves the others finite, and with them the loss. What a loss is made of is written out
here, as exact as torch's. The softmax stays oneDNN's: written out it takes three times as long, and attention is full
of it.
"""

from __future__ import annotations

from layered_lr_oneflow.oneflow_types import Tensor
from layered_lr_oneflow.operators.arithmetic import detach, make_constant
from layered_lr_oneflow.operators.broadcasting import add, subtract
from layered_lr_oneflow.operators.not_a_number import put_nan
from layered_lr_oneflow.runtime import flow


def softmax(x: Tensor, axis: int) -> Tensor:
    """Compute the softmax along an axis; all of it is NaN where a number is NaN or inf, or all are -inf."""
    made: Tensor = flow._C.softmax(x, axis)
    values = detach(made)
    is_spoilt = flow.any(values != values, dim=[axis], keepdim=True)
    return add(made, put_nan(is_spoilt, make_constant(tuple(is_spoilt.shape), 0, made.dtype, made)))


def log_softmax(x: Tensor, axis: int) -> Tensor:
    """Compute the logarithm of the softmax along an axis; NaN where that is."""
    largest = flow.amax(detach(x), dim=[axis], keepdim=True)  # no power overflows, and the gradient is the same
    lowered = subtract(x, largest)
    return subtract(lowered, flow.log(flow.exp(lowered).sum(dim=[axis], keepdim=True)))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean cross-entropy of a batch.

    Args:
        logits: Shape (N, classes).
        labels: Class numbers, shape (N,).
    """
    return -flow.gather(log_softmax(logits, 1), 1, labels.reshape(-1, 1)).mean()
