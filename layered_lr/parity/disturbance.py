"""Rounding errors that are added on purpose: they make a run differ from itself as rounding would."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

FALSE_ALARMS = 1e-3
"""At most this share of comparisons of equal backends may say 'different'."""


def margin(samples: int, checks: int) -> float:
    """By how many last bits samples are disturbed, so that rounding of one last bit stays inside their envelope.

    Take the deviation that rounding causes at one check as normal, with mean 0: it is the sum of many small errors.
    A new one, ``Z``, exceeds ``m`` times the largest of S others, ``Z_1 .. Z_S``, with probability

        P(|Z| > m max |Z_s|) <= E[(sqrt(2/pi) |Z| / m)^S] = (4/pi)^(S/2) Gamma((S+1)/2) / sqrt(pi) / m^S,

    since ``P(|Z_s| < z) <= sqrt(2/pi) z``. With n checks, m is where n times this is ``FALSE_ALARMS``. The bound adds
    the checks up as if each of them could fail by itself and takes each deviation as a single number, where it is the
    largest of many: both err on the side of no alarm.

    The margin multiplies the disturbance and not its effect. To first order this is the same; but a ReLU that
    tips over, or chaos, follows the size of a disturbance in its own way, which the samples then show.

    Args:
        samples: S, how many disturbed runs there are.
        checks: n, how many numbers are compared.
    """
    constant = (4 / math.pi) ** (samples / 2) * math.gamma((samples + 1) / 2) / math.sqrt(math.pi)
    return float((checks * constant / FALSE_ALARMS) ** (1 / samples))


class Disturbance:
    """Random errors of some last bits, and the order of images in a batch, which orders sums otherwise.

    Args:
        rng: Where they come from.
        kept_bits: The largest error of a number that is kept, in its last bits.
        passing_bits: The largest error of a weight while a gradient is computed.
        sign: 1, or -1 for the opposite of what the same ``rng`` gives.
    """

    def __init__(
        self, rng: np.random.Generator, kept_bits: float, passing_bits: float, sign: Literal[1, -1] = 1
    ) -> None:
        self.rng = rng
        self.kept_bits = kept_bits
        self.passing_bits = passing_bits
        self.sign = sign

    def kept(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array with an error of up to ``kept_bits`` last bits in each number, even both ways."""
        return self._last_bits(array, self.kept_bits, 0.0)

    def passing(self, array: NDArray[Any], size: float) -> NDArray[Any]:
        """The array with an error of up to ``passing_bits`` last bits, as a forward and a backward pass make it.

        Args:
            array: Some of the weights.
            size: The size of a typical weight: a bias near 0 is added to what such weights make, and shares their
                errors.
        """
        return self._last_bits(array, self.passing_bits, size)

    def _last_bits(self, array: NDArray[Any], bits: float, least: float) -> NDArray[Any]:
        errors = (self.sign * bits * self.rng.uniform(-1.0, 1.0, array.shape)).astype(array.dtype)
        sizes = np.maximum(np.abs(array), array.dtype.type(least))
        return array + np.spacing(sizes) * errors  # type: ignore[no-any-return]

    def shuffled(self, images: NDArray[Any], labels: NDArray[Any], parts: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """The batch with the images of each part in another order."""
        order = np.concatenate([self.rng.permutation(part) for part in np.split(np.arange(len(labels)), parts)])
        return images[order], labels[order]
