"""Operators of translated models whose tensors are repeated: OneFlow's own numbers and gradients, in another layout."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((8, 16, 8, 8), (16, 1, 1)),
    ((8, 16, 8, 8), (1, 16, 8, 8)),
    ((8, 16, 8, 8), (8, 1, 1, 1)),
    ((8, 16, 8, 8), (8, 1, 8, 8)),
    ((8, 16, 8, 8), (8, 1, 8, 1)),
    ((8, 16, 8, 8), (1, 16, 1, 8)),
    ((8, 16, 64), (8, 16, 1)),
    ((8, 16, 64), (16, 1)),
    ((8, 16, 64), (64,)),
    ((8, 1, 16, 64), (1, 4, 16, 1)),
    ((4096, 2), (4096, 1)),
    ((8192,), (1,)),
    ((8, 16, 64), ()),
    ((2, 3), (3,)),
]
"""Each a tensor and what is repeated; one pair repeats both, the last one is too small to matter."""


def results(oneflow: Any, function: Callable[..., Any], first: Any, second: Any) -> list[Any]:
    """What a function answers, and its gradients."""
    tensors = [oneflow.tensor(each, requires_grad=True) for each in (first, second)]
    made = function(*tensors)
    if made.dtype == oneflow.bool:
        return [made.numpy()]
    weights = np.linspace(-1, 1, made.numel(), dtype="float32").reshape(tuple(made.shape))
    (made * oneflow.tensor(weights)).sum().backward()
    return [made.numpy(), *(tensor.grad.numpy() for tensor in tensors)]


@pytest.mark.parametrize(("large", "small"), SHAPES)
def test_the_numbers_are_those_of_oneflow(oneflow: Any, large: tuple[int, ...], small: tuple[int, ...]) -> None:
    from layered_lr_oneflow.operators import broadcasting as ours

    rng = np.random.default_rng(0)
    first, second = (rng.integers(-3, 4, shape).astype("float32") for shape in (large, small))
    pairs: list[tuple[Any, Any]] = [
        (ours.add, operator.add), (ours.subtract, operator.sub), (ours.multiply, operator.mul),
        (ours.maximum, oneflow.maximum), (ours.equals, operator.eq), (ours.differs, operator.ne),
        (ours.is_less, operator.lt), (ours.is_at_most, operator.le), (ours.is_greater, operator.gt),
        (ours.is_at_least, operator.ge), (ours.minimum, oneflow.minimum), (ours.divide, operator.truediv),
    ]  # fmt: skip
    for mine, own in pairs:
        for one, other in ((first, second), (second, first)):
            if own is operator.truediv:
                one, other = one, np.where(other == 0, np.float32(0.5), other)
            found, expected = results(oneflow, mine, one, other), results(oneflow, own, one, other)
            assert found[0].tobytes() == expected[0].tobytes() and found[0].shape == expected[0].shape, own
            for gradient, its in zip(found[1:], expected[1:], strict=True):  # sums, of as many terms in another order
                np.testing.assert_allclose(gradient, its, rtol=1e-5, atol=1e-4, err_msg=str(own))


def test_numbers_beside_a_tensor_are_compared_as_oneflow_does(oneflow: Any) -> None:
    from layered_lr_oneflow.operators import broadcasting as ours

    x = np.random.default_rng(0).integers(-2, 3, (64, 128)).astype("float32")
    x[0, :3] = np.nan, np.inf, -0.0
    for number in (0, 0.5, -1, float("inf")):
        for mine, own in ((ours.is_greater, operator.gt), (ours.equals, operator.eq), (ours.is_at_most, operator.le)):
            assert np.array_equal(mine(oneflow.tensor(x), number).numpy(), own(x, np.float32(number)))


def test_nan_is_compared_and_chosen_as_torch_does(oneflow: Any, torch: Any) -> None:
    from layered_lr_oneflow.operators import FUNCTIONS

    kinds = np.array([np.nan, 1, -1, 0.0, -0.0, np.inf, -np.inf, 2.5], "float32")
    x, y = (np.repeat(each.reshape(-1), 4) for each in np.meshgrid(kinds, kinds))
    for name in ("gt", "ge", "lt", "le", "eq", "ne", "maximum", "minimum"):
        for first, second in ((x, y), (np.tile(x, (32, 1)), y), (y, np.tile(x, (32, 1)))):
            expected = getattr(torch, name)(torch.from_numpy(first), torch.from_numpy(second)).numpy()
            found = FUNCTIONS[name](oneflow.tensor(first), oneflow.tensor(second)).numpy()
            np.testing.assert_array_equal(found, expected, err_msg=name)
    assert (FUNCTIONS["pow"](oneflow.tensor(x), 0).numpy() == 1).all()


@pytest.mark.parametrize(
    ("large", "small", "layout"),
    [
        ((2, 3, 4, 5), (1, 3, 4, 5), ((2, 60), (1, 60))),
        ((2, 3, 4, 5), (2, 1, 1, 1), ((1, 2, 60, 1), (1, 2, 1, 1))),
        ((2, 3, 4, 5), (3, 1, 1), ((2, 3, 20, 1), (1, 3, 1, 1))),
        ((2, 1, 4, 5), (2, 1, 1, 5), ((2, 4, 1, 5), (2, 1, 1, 5))),
        ((2, 3, 4, 5), (2, 1, 4, 1), None),
    ],
)
def test_axes_become_one(oneflow: Any, large: Any, small: Any, layout: Any) -> None:
    from layered_lr_oneflow.operators.broadcasting import find_layout

    assert find_layout(large, small) == layout
