"""Names of torch's functions: what they are called here, which draw, which are refused, which bring dtypes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from layered_lr.models.graph_operators import BINARY

IGNORED: Final = ("memory_format", "inplace", "_stacklevel", "pin_memory", "layout", "non_blocking", "copy")


_DRAW_ELSEWHERE = "Draw with torch.nn.Dropout, torch.rand or Tensor.bernoulli_, or train on a torch backend."


_NO_GRADIENT = "A translated model has torch's own gradients only: leave it out, or train on a torch backend."


RANDOM: Final = frozenset(
    [
        "dropout",
        "feature_dropout",
        "alpha_dropout",
        "feature_alpha_dropout",
        "bernoulli",
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "randint",
        "randint_like",
        "randperm",
        "normal",
        "uniform",
        "exponential",
        "multinomial",
        "rrelu",
        "rrelu_with_noise",
        "poisson",
        "geometric",
        "cauchy",
        "log_normal",
        "random",
        "native_dropout",
    ]
)


REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        RANDOM - {"dropout", "feature_dropout", "bernoulli", "rand", "rand_like", "uniform"}, _DRAW_ELSEWHERE
    ),
    **dict.fromkeys(
        ("backward", "grad", "register_hook", "register_post_accumulate_grad_hook", "retain_grad"), _NO_GRADIENT
    ),
    **dict.fromkeys(("item", "tolist", "numpy"), "Let no branch or number depend on what is in a tensor."),
}


REFUSED_OF_INPUTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("apply", "map", "map2"), "Use torch's functions."),
    "deepcopy": "Use clone; a layer or a parameter can only be copied in __init__.",
    **dict.fromkeys(("data_ptr", "array"), "Let no branch or number depend on what is in a tensor, or where it is."),
}
"""Of what depends on the inputs or on parameters."""


IN_PLACE: Final[Mapping[str, str]] = {
    **dict.fromkeys(RANDOM, "Draw with torch.rand, torch.rand_like or torch.nn.Dropout."),
    "setitem": "Assign to whole parts, such as x[:, 2:4] = y, or use torch.where or torch.cat.",
}
"""What to do instead of a function that changes its first argument, where it is not the form without underscore."""


class Refusal(NamedTuple):
    """Why a call is not written with other functions, where another one of the same function is.

    Args:
        what: What the model does, such as ``"calls prod of 65 numbers (64 are the most)"``.
        mend: What to do.
    """

    what: str
    mend: str


PROMOTED: Final = frozenset({*BINARY, "where"})
"""Functions whose tensors torch brings to one dtype before it computes."""


_RENAMED = {
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "truediv": "div",
    "true_divide": "div",
    "floordiv": "floor_divide",
    "mod": "remainder",
    "negative": "neg",
    "absolute": "abs",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "invert": "bitwise_not",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
    "special_erf": "erf",
    "special_expm1": "expm1",
    "linalg_matmul": "matmul",
    "log_sigmoid": "logsigmoid",
    "special_logsumexp": "logsumexp",
}


_REVERSED = ("radd", "rmul", "rsub", "rand", "ror", "rxor", "rfloordiv", "rmod", "rtruediv", "rpow", "rmatmul")


def name_of(func: Any) -> tuple[str, bool]:
    """Return a function's name without underscores around it, and whether it changes its first argument."""
    name = str(getattr(func, "__name__", func))
    if name in ("__get__", "__set__", "__delete__"):
        return f"{name.strip('_')}:{func.__self__.__name__}", False
    if name.startswith("__") and name.endswith("__"):
        plain = name.strip("_")
        if plain in _REVERSED:
            return f"reversed:{_RENAMED.get(plain[1:], plain[1:])}", False
        in_place = plain[:1] == "i" and plain[1:] in {
            "add",
            "sub",
            "mul",
            "truediv",
            "div",
            "floordiv",
            "pow",
            "mod",
            "and",
            "or",
            "xor",
            "matmul",
        }
        plain = plain[1:] if in_place else plain
        return _RENAMED.get(plain, plain), in_place
    in_place = name.endswith("_")
    plain = name.strip("_")
    return _RENAMED.get(plain, plain), in_place
