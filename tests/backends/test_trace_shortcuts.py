"""Shortcuts of the trace have the shapes, dtypes and layouts of torch's results, or leave the call to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def of(*shape: int, dtype: Any = torch.float32) -> Any:
    return torch.zeros(shape, dtype=dtype)


TAKEN: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (torch.batch_norm, (of(2, 3, 4, 4), of(3), of(3), of(3), of(3), False, 0.1, 1e-5, False)),
    (torch.layer_norm, (of(2, 5, 6), (6,), of(6), of(6), 1e-5)),
    (torch.layer_norm, (of(2, 5, 6), [5, 6])),
    (F.linear, (of(2, 5, 6), of(4, 6), of(4))),
    (F.linear, (of(2, 6, dtype=torch.float64), of(4, 6, dtype=torch.float64))),
    (torch.conv2d, (of(2, 6, 9, 8), of(4, 3, 3, 2), of(4), (2, 1), (1, 0), (1, 2), 2)),
    (torch.conv2d, (of(2, 3, 7, 7), of(4, 3, 1, 1), None, 3)),
]
LEFT: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (torch.layer_norm, (of(2, 6), (5,))),
    (F.linear, (of(2, 5), of(4, 6))),
    (F.linear, (of(2, 6, dtype=torch.float64), of(4, 6))),
    (torch.conv2d, (of(2, 3, 2, 2), of(4, 3, 3, 3))),
    (torch.conv2d, (of(2, 3, 8, 8), of(4, 4, 3, 3))),
    (torch.conv2d, (of(3, 8, 8), of(4, 3, 3, 3))),
    (torch.conv2d, (of(2, 3, 8, 8), of(4, 3, 3, 3), None, 1, "same")),
    (torch.conv2d, (of(2, 3, 8, 8).contiguous(memory_format=torch.channels_last), of(4, 3, 3, 3))),
    (torch.relu, (of(2, 3),)),
]


@pytest.mark.parametrize(("function", "arguments"), TAKEN)
def test_a_shortcut_has_torchs_shape_dtype_and_layout(function: Any, arguments: tuple[Any, ...]) -> None:
    from layered_lr_torch.trace_shortcuts import find_result

    found, torchs = find_result(function, arguments, {}), function(*arguments)
    assert found is not None
    assert (found.shape, found.dtype, found.stride()) == (torchs.shape, torchs.dtype, torchs.stride())


@pytest.mark.parametrize(("function", "arguments"), TAKEN)
@pytest.mark.parametrize("place", [0, 1])
def test_a_shortcut_requires_a_gradient_as_torch_does(function: Any, arguments: tuple[Any, ...], place: int) -> None:
    from layered_lr_torch.trace_shortcuts import find_result

    given = tuple(
        each.clone().requires_grad_() if number == place and isinstance(each, torch.Tensor) else each
        for number, each in enumerate(arguments)
    )
    with torch.no_grad():
        assert not find_result(function, given, {}).requires_grad
    found, torchs = find_result(function, given, {}), function(*given)
    assert (found.requires_grad, found.is_leaf) == (torchs.requires_grad, torchs.is_leaf)


@pytest.mark.parametrize(("function", "arguments"), LEFT)
def test_other_calls_are_left_to_torch(function: Any, arguments: tuple[Any, ...]) -> None:
    from layered_lr_torch.trace_shortcuts import find_result

    assert find_result(function, arguments, {}) is None
