"""A model's state as one vector, in the order of a plan's groups."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Float64
from layered_lr.plans.plan import Plan

BUFFERS, AVERAGE = "buffers", "moving average"
_EMA = "average of "


class Array(NamedTuple):
    """One array of the state.

    Args:
        name: Of the parameter or buffer.
        section: What it is counted to: a group's name, ``buffers`` or ``moving average``.
        size: How many numbers it holds, at least one.
    """

    name: str
    section: str
    size: int


class Layout:
    """Which array lies where: every group's parameters, then floating buffers, then moving averages.

    Args:
        arrays: In the vector's order; arrays of one section follow each other.
    """

    def __init__(self, arrays: tuple[Array, ...]) -> None:
        self.arrays = arrays
        self.sections = tuple(dict.fromkeys(array.section for array in arrays))

    @cached_property
    def width(self) -> int:
        """Numbers in all."""
        return sum(array.size for array in self.arrays)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each array begins."""
        return np.cumsum([0, *(array.size for array in self.arrays[:-1])], dtype=np.int64)

    @cached_property
    def section_of(self) -> NDArray[np.int64]:
        """The place of each array's section in ``sections``."""
        return np.array([self.sections.index(array.section) for array in self.arrays], dtype=np.int64)

    @cached_property
    def is_buffer(self) -> NDArray[np.bool_]:
        """Which arrays are buffers."""
        return np.array([array.section == BUFFERS for array in self.arrays], dtype=bool)

    def packed(self, state: Mapping[str, NDArray[Any]], dtype: Any) -> NDArray[Any]:
        """The state as one vector."""
        vector = np.empty(self.width, dtype)
        for array, start in zip(self.arrays, self.starts.tolist(), strict=True):
            vector[start : start + array.size] = state[array.name].reshape(-1)
        return vector

    def largest(self, vector: NDArray[Any]) -> Float64:
        """The largest size of an element in each array, shape (arrays,)."""
        return np.maximum.reduceat(np.abs(vector).astype(np.float64, copy=False), self.starts)

    def norms(self, vector: NDArray[Any]) -> Float64:
        """The L2 norm of each array, shape (arrays,)."""
        squares: Float64 = np.add.reduceat(np.square(vector, dtype=np.float64), self.starts)
        return np.sqrt(squares)

    def section_norms(self, norms: Float64) -> Float64:
        """The L2 norm of each section.

        Args:
            norms: Of each array, shape (..., arrays).

        Returns:
            Shape (..., sections).
        """
        parts = [np.linalg.norm(norms[..., self.section_of == place], axis=-1) for place in range(len(self.sections))]
        return np.stack(parts, axis=-1) if parts else np.empty((*norms.shape[:-1], 0))

    def by_section(self, values: Float64) -> Float64:
        """The largest value in each section; NaN stands for none.

        Args:
            values: Shape (..., arrays).

        Returns:
            Shape (..., sections).
        """
        parts = [np.fmax.reduce(values[..., self.section_of == place], axis=-1) for place in range(len(self.sections))]
        return np.stack(parts, axis=-1) if parts else np.empty((*values.shape[:-1], 0))


def layout_of(plan: Plan, state: Mapping[str, NDArray[Any]]) -> Layout:
    """The layout of a model's state under a plan.

    Args:
        plan: Made for the model.
        state: Parameters and buffers, and moving averages as ``with_averages`` adds them.
    """
    own = {parameter.name for parameter in plan.parameters} | {
        alias for parameter in plan.parameters for alias in parameter.aliases
    }
    arrays = [Array(name, group.name, state[name].size) for group in plan.groups for name in group.parameters]
    floating = [name for name, array in state.items() if name not in own and array.dtype.kind == "f"]
    arrays += [Array(name, BUFFERS, state[name].size) for name in floating if not name.startswith(_EMA)]
    arrays += [Array(name, AVERAGE, state[name].size) for name in floating if name.startswith(_EMA)]
    return Layout(tuple(array for array in arrays if array.size))


def with_averages(state: dict[str, NDArray[Any]], averages: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The state, with the moving averages under names of their own."""
    return state | {_EMA + name: array for name, array in averages.items()}
