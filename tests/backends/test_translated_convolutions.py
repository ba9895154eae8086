"""Convolutions of translated models: whichever way they are written, they are torch's, forwards and backwards."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.isolation import value_of

pytestmark = pytest.mark.usefixtures("torch", "oneflow")

# images, weight, stride, padding, dilation, groups: at least two for each form, at its edges.
CASES: list[tuple[Any, ...]] = [
    ((3, 6, 1, 1), (5, 6, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((3, 6, 1, 1), (6, 2, 5, 3), (2, 2), (2, 1), (1, 1), 3),
    ((2, 6, 3, 2), (4, 6, 3, 2), (1, 1), (0, 0), (1, 1), 1),
    ((3, 5, 7, 4), (6, 5, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((3, 5, 7, 4), (6, 5, 1, 1), (2, 3), (0, 0), (1, 1), 1),
    ((2, 3, 20, 17), (4, 3, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((2, 3, 9, 10), (4, 3, 4, 3), (4, 3), (0, 0), (1, 1), 1),
    ((2, 6, 5, 7), (6, 1, 3, 5), (2, 1), (1, 2), (1, 1), 6),
    ((2, 4, 8, 8), (8, 1, 3, 3), (1, 1), (2, 2), (2, 2), 4),
    ((2, 6, 3, 4), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 2),
    ((2, 4, 13, 11), (4, 1, 3, 3), (1, 1), (1, 1), (1, 1), 4),
    ((2, 4, 17, 12), (4, 1, 5, 5), (2, 2), (2, 2), (1, 1), 4),
    ((2, 4, 12, 20), (4, 1, 3, 3), (3, 1), (0, 2), (1, 2), 4),
    ((2, 3, 4, 3), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((7, 5, 4, 5), (8, 5, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((4, 4, 9, 8), (3, 4, 3, 3), (1, 1), (0, 2), (1, 1), 1),
    ((3, 4, 11, 13), (8, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((40, 8, 2, 2), (6, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((30, 8, 5, 2), (6, 8, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((40, 8, 2, 2), (6, 8, 3, 3), (1, 1), (2, 2), (1, 1), 1),
    ((2, 16, 3, 48), (40, 16, 3, 3), (1, 1), (2, 0), (1, 1), 1),
    ((2, 64, 7, 6), (4, 64, 3, 3), (2, 2), (1, 0), (1, 1), 1),
    ((2, 66, 3, 3), (66, 33, 2, 2), (1, 1), (1, 1), (1, 1), 2),
    ((2, 3, 10, 9), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 4, 6), (6, 2, 3), (1,), (1,), (1,), 2),
    ((2, 4, 9), (6, 4, 1), (1,), (0,), (1,), 1),
    ((2, 4, 2, 3, 2), (6, 4, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    ((2, 4, 2, 3, 4), (4, 1, 3, 1, 3), (1, 2, 1), (1, 0, 1), (1, 1, 1), 4),
]


def found_differences(cases: list) -> list:  # type: ignore[type-arg]
    from tests.support.convolution_differences import differences

    return differences(cases)


def test_every_form_is_torchs_convolution() -> None:
    from layered_lr_oneflow.operators.convolutions import FORMS

    found = value_of(found_differences, CASES)
    assert {name for name, *_ in found} == {form.name for form in FORMS} | {"OneFlow's own"}
    for case, (name, eager, graph, single) in zip(CASES, found, strict=True):
        assert eager < 1e-12 and graph < 1e-12, (name, case)  # the order of sums
        assert single < 1e-5, (name, case)  # sums of up to 600 products in float32


@pytest.mark.parametrize(("stride", "copied"), [(1, (512 + 512) * 16 * 4), (2, 512 * 9 * 4)])
def test_large_batches_are_left_to_oneflow(stride: int, copied: int) -> None:
    from layered_lr_oneflow.operators.convolutions import LARGEST_COPY, choose_form

    sizes = ((512, 512, 3, 3), (stride, stride), (1, 1), (1, 1), 1)
    images = LARGEST_COPY // copied
    assert choose_form((images, 512, 4, 4), *sizes) is not None
    assert choose_form((images + 1, 512, 4, 4), *sizes) is None
