"""One array of a model's state, as data without a framework: its name, its shape, and its first values."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from layered_lr.arrays import Array


class Entry(NamedTuple):
    """One array of a model's state.

    Args:
        name: The name in torchvision and flowvision.
        shape: OIHW for convolutions, (out, in) for linear layers.
        start: How its first values are made. Names that end in ``_buffer`` mean buffers, all others parameters.
        types: Names of the class of the module that holds it and of those that it is derived from, as in torch.
    """

    name: str
    shape: tuple[int, ...]
    start: Literal["conv", "linear", "ones", "zeros", "ones_buffer", "zeros_buffer", "count_buffer"]
    types: tuple[str, ...]

    @property
    def is_parameter(self) -> bool:
        """Whether the array is a parameter; if not, it is a buffer."""
        return not self.start.endswith("_buffer")

    def draw(self, rng: np.random.Generator) -> Array:
        """Make the first values of the array, with torchvision's distributions.

        Convolutions are normal with variance 2 / fan_out (fan_out = output channels times kernel size), linear weights
        are normal with standard deviation 0.01; the others are 1 or 0.

        Args:
            rng: The generator to draw from.
        """
        if self.start == "conv":
            fan_out = self.shape[0] * int(np.prod(self.shape[2:]))
            return np.float32(np.sqrt(2 / fan_out)) * rng.standard_normal(self.shape, np.float32)
        if self.start == "linear":
            return np.float32(0.01) * rng.standard_normal(self.shape, np.float32)
        if self.start == "count_buffer":
            return np.zeros(self.shape, np.int64)
        return np.full(self.shape, 1 if self.start.startswith("ones") else 0, np.float32)
