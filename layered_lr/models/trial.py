"""One forward and one backward pass of a model in training, as its own framework computes them, to compare others with.

Two frameworks round in different orders, and a network may make much of that. So the pass is made again with inputs
that are changed by a millionth, and many times of what this changes is allowed. Where it changes a gradient by more
than a thousandth, nothing can be told of that gradient. One that is lost, or is another one, is farther away by far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Arrays

_DISTURBANCES: Final = {"float32": 1e-6, "float64": 1e-12}
_CLOSE: Final = 1e-2  # relative to a tensor's own size
_TIMES: Final = 100  # of what the disturbance changes
_FLOOR: Final = 1e-4  # relative to the largest gradient: below it, sums of terms that cancel are rounding alone
_CHAOS: Final = 1e-3  # relative to a tensor's own size: what a disturbance changes by more is no number to compare
_SAMPLE: Final = 2**16  # numbers of a tensor: what is wrong in a large one is wrong in many of its numbers

_IMAGES: Final = 8  # of one pixel in the deepest layer: of fewer numbers, a batch normalisation makes rounding large
_STRIDE: Final = 32  # of the deepest layer of most networks


LEAST_BATCH: Final = 2
"""Images: a batch normalisation refuses to train on one."""


class Pass(NamedTuple):
    """What a model gives in training.

    Args:
        answers: The floating-point tensors of its answer, by their place; see ``sample``.
        gradients: Of the sum of the answers, each times ``draw_weights``, by the names of the parameters; likewise.
    """

    answers: Mapping[int, NDArray[Any]]
    gradients: Arrays


class Trial(NamedTuple):
    """A pass, and how far it moves with its inputs.

    Args:
        inputs: Of the pass.
        wanted: What the model's framework gives.
        disturbed: The same for inputs that are a little other ones; empty where no input can be.
    """

    inputs: tuple[NDArray[Any], ...]
    wanted: Pass
    disturbed: tuple[Pass, ...]


def count_images(shape: Sequence[int]) -> int:
    """Return how many images a trial needs, 2 to 8.

    Args:
        shape: Of one image; the last two sizes are height and width.

    Example:
        >>> [count_images((3, size, size)) for size in (32, 64, 224)]
        [8, 2, 2]
    """
    pixels = int(np.prod([max(size // _STRIDE, 1) for size in shape[1:]], dtype=np.int64))
    return max(_IMAGES // pixels, LEAST_BATCH)


def draw_weights(place: int, shape: Sequence[int]) -> NDArray[np.float64]:
    """Draw what an answer is multiplied by before it is summed, so that no symmetry hides a gradient.

    Args:
        place: Of the tensor among those of the answer.
        shape: Of the tensor.
    """
    return np.random.default_rng(place).normal(size=tuple(shape))


def disturb(array: NDArray[Any], number: int) -> NDArray[Any]:
    """Change floating-point numbers by about a millionth; in float64, by a millionth of a millionth.

    Args:
        array: Is kept.
        number: Of the disturbance.
    """
    if array.dtype.kind != "f":
        return array
    noise = np.random.default_rng([number, array.size]).normal(size=array.shape)
    disturbed: NDArray[Any] = (array * (1 + _DISTURBANCES[str(array.dtype)] * noise)).astype(array.dtype)
    return disturbed


def sample(array: NDArray[Any]) -> NDArray[Any]:
    """Copy numbers of an array at equal distances, 65,536 at most.

    Args:
        array: Of any shape.

    Returns:
        Shape (numbers,).
    """
    return array.reshape(-1)[:: -(-array.size // _SAMPLE) or 1].copy()


def find_far(trial: Trial, made: Pass) -> str:
    """Say in which answer or gradient a pass is not the one that is wanted; empty if it is.

    Args:
        trial: What is wanted.
        made: The same of another framework.
    """
    for place, wanted in trial.wanted.answers.items():
        if not _is_close(wanted, made.answers[place], [each.answers[place] for each in trial.disturbed], 0.0):
            return "its answer" if len(trial.wanted.answers) == 1 else f"tensor {place} of its answer"
    largest = max(map(_find_size, trial.wanted.gradients.values()), default=0.0)
    for name, wanted in trial.wanted.gradients.items():
        if not _is_close(wanted, made.gradients[name], [each.gradients[name] for each in trial.disturbed], largest):
            return f"the gradient of {name!r}"
    return ""


def _find_size(array: NDArray[Any]) -> float:
    """The root of the mean square of the finite numbers."""
    finite = array[np.isfinite(array)].astype(np.float64)
    return float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0


def _is_close(wanted: NDArray[Any], made: NDArray[Any], disturbed: Sequence[NDArray[Any]], largest: float) -> bool:
    size, finite = _find_size(wanted), np.isfinite(wanted)
    if any((np.isfinite(each) != finite).any() for each in disturbed):
        return True  # nobody can tell
    if (np.isfinite(made) != finite).any():
        return False
    spread = max((_find_size((each - wanted)[finite]) for each in disturbed), default=0.0)
    if spread > _CHAOS * size:
        return True
    return _find_size((made - wanted)[finite]) <= max(_CLOSE * size, _TIMES * spread, _FLOOR * largest)
