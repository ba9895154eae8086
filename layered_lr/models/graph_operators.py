"""The operators of a traced model, each with the names of its arguments: the vocabulary of ``graph.py``.

A tracer writes nothing else, and a backend that builds traced models knows all of them. Each gives one tensor. ``x``
and ``y`` are tensors, and ``y`` may be a number. Axes count from 0. Sizes have a number for each spatial axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# One tensor in, one tensor of the same shape out; named and meant as in torch.
UNARY: Final = (
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "exp",
    "expm1",
    "floor",
    "isnan",
    "log",
    "log1p",
    "log2",
    "logical_not",
    "neg",
    "reciprocal",
    "relu",
    "round",
    "rsqrt",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
    "silu",
    "mish",
    "hardswish",
    "hardsigmoid",
    "softsign",
    "selu",
    "logsigmoid",
)

# Two tensors that broadcast, or a tensor and a number; both tensors have the same dtype.
BINARY: Final = (
    "add",
    "sub",
    "mul",
    "div",
    "floor_divide",
    "remainder",
    "pow",
    "atan2",
    "maximum",
    "minimum",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_xor",
)

OPERATORS: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(UNARY, ("x",)),
    **dict.fromkeys(BINARY, ("x", "y")),
    "gelu": ("x", "approximate"),
    "leaky_relu": ("x", "slope"),
    "elu": ("x", "alpha"),
    "hardtanh": ("x", "low", "high"),
    "softplus": ("x", "beta", "threshold"),
    "prelu": ("x", "weight"),
    "where": ("condition", "x", "y"),
    "clamp": ("x", "low", "high"),
    "cast": ("x", "dtype"),
    "detach": ("x",),
    "keep_gradient": ("x", "values"),  # the numbers of the second, and all of its gradient goes to the first
    # matrices and convolutions
    "matmul": ("x", "y"),
    "linear": ("x", "weight", "bias"),
    "einsum": ("equation", "tensors"),
    "conv": ("x", "weight", "bias", "stride", "padding", "dilation", "groups"),
    "conv_transpose": ("x", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
    "unfold": ("x", "kernel", "dilation", "padding", "stride"),
    # normalisations; those of batches update ``mean`` and ``variance`` where they train
    "batch_norm": ("x", "mean", "variance", "weight", "bias", "training", "momentum", "eps"),
    "layer_norm": ("x", "axes", "weight", "bias", "eps"),
    "group_norm": ("x", "groups", "weight", "bias", "eps"),
    # pooling
    "max_pool": ("x", "kernel", "stride", "padding", "dilation", "ceil"),
    "avg_pool": ("x", "kernel", "stride", "padding", "ceil", "counts_padding", "divisor"),
    "adaptive_avg_pool": ("x", "size"),
    "adaptive_max_pool": ("x", "size"),
    # reductions
    "softmax": ("x", "axis"),
    "log_softmax": ("x", "axis"),
    "sum": ("x", "axes", "keepdim"),
    "mean": ("x", "axes", "keepdim"),
    "var": ("x", "axes", "correction", "keepdim"),
    "amax": ("x", "axes", "keepdim"),
    "amin": ("x", "axes", "keepdim"),
    "argmax": ("x", "axis", "keepdim"),
    "argmin": ("x", "axis", "keepdim"),
    "cumsum": ("x", "axis"),
    "cumprod": ("x", "axis"),
    # shapes and indices
    "reshape": ("x", "shape"),
    "permute": ("x", "axes"),
    "expand": ("x", "shape"),
    "cat": ("tensors", "axis"),
    "slice": ("x", "axis", "start", "stop", "step"),
    "flip": ("x", "axes"),
    "roll": ("x", "shifts", "axes"),
    "pad": ("x", "widths", "mode", "value"),
    "index_select": ("x", "axis", "index"),
    "gather": ("x", "axis", "index"),
    "grid_sample": ("x", "grid", "mode", "padding", "aligned"),
    "scatter_add": ("x", "axis", "index", "source"),  # the axes of the last three are alike but for ``axis``
    "full": ("shape", "value", "dtype"),
    # random numbers, which a session draws where a run has to be repeatable
    "dropout": ("x", "p", "training", "mask_shape"),
    "bernoulli": ("shape", "p", "dtype"),
    "uniform": ("shape", "dtype"),
}

MOVING: Final = frozenset(["reshape", "permute", "expand", "cat", "slice", "flip", "pad", "cast", "detach"])
"""Operators that compute nothing: their results have the numbers of their arguments."""

WITHOUT_NUMBERS: Final = frozenset([*UNARY, *MOVING, "add", "sub", "mul", "sum", "index_select", "gather", "full"]) - {
    "logsigmoid"
}
"""Operators that OneFlow 0.9 runs on tensors with an axis of length 0; some others, such as ``where``, abort there."""

DTYPES: Final = ("float32", "float64", "int64", "int32", "int8", "uint8", "bool")
"""What tensors of a traced model may hold."""

RANDOM: Final = ("dropout", "bernoulli", "uniform")
