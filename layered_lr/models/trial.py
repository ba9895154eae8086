"""One forward and one backward pass of a model in training, as its own framework computes them, to compare others with.

Two frameworks round in different orders, and a network may make much of that. So the pass is made again with inputs
that are changed by a millionth, and many times of what this changes is allowed. Where it changes a gradient by more
than a thousandth, nothing can be told of that gradient. One that is lost, or is another one, is farther away by far.

Whole and truth values are equal or are not. Those that inputs changed by a ten thousandth change are near a limit,
where rounding decides: of them nothing can be told either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Arrays

_DISTURBANCES: Final = {"float32": 1e-6, "float64": 1e-12}
_CLOSE: Final = 1e-2  # relative to a tensor's own size
_TIMES: Final = 100  # of what the disturbance changes
_FLOOR: Final = 1e-4  # relative to the largest gradient: below it, sums of terms that cancel are rounding alone
_CHAOS: Final = 1e-3  # relative to a tensor's own size: what a disturbance changes by more is no number to compare
_ROUNDING: Final = 1e-5  # of a buffer's size: 100 last bits of float32, which a backend may hold a momentum in
_UNSTEADY: Final = 0.1  # of whole numbers: where more of them change with the inputs, there is no number to compare
_SAMPLE: Final = 2**16  # numbers of a tensor: what is wrong in a large one is wrong in many of its numbers

_IMAGES: Final = 8  # of one pixel in the deepest layer: of fewer numbers, a batch normalisation makes rounding large
_STRIDE: Final = 32  # of the deepest layer of most networks


LEAST_BATCH: Final = 2
"""Images: a batch normalisation refuses to train on one."""


class Pass(NamedTuple):
    """What a model gives in training.

    Args:
        answers: The tensors of its answer, by their place; see ``sample``.
        gradients: Of the sum of those that have one, each times ``draw_weights``, by the names of the parameters;
            likewise.
        buffers: After the forward pass, by name; likewise.
    """

    answers: Mapping[int, NDArray[Any]]
    gradients: Arrays
    buffers: Arrays = MappingProxyType({})


class Trial(NamedTuple):
    """A pass, and how far it moves with its inputs.

    Args:
        inputs: Of the pass.
        wanted: What the model's framework gives.
        disturbed: The same for inputs that are a little other ones; empty where no input can be.
        shaken: Answers and buffers for inputs that are a hundred times as far away; empty where they tell nothing.
        before: The buffers before the pass.
    """

    inputs: tuple[NDArray[Any], ...]
    wanted: Pass
    disturbed: tuple[Pass, ...]
    shaken: tuple[Pass, ...] = ()
    before: Arrays = MappingProxyType({})


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


def disturb(array: NDArray[Any], number: int, shakes: bool = False) -> NDArray[Any]:
    """Change floating-point numbers by about a millionth; in float64, by a millionth of a millionth.

    Args:
        array: Is kept.
        number: Of the disturbance.
        shakes: Whether to change them by a hundred times as much.
    """
    if array.dtype.kind != "f":
        return array
    noise = np.random.default_rng([number, array.size]).normal(size=array.shape)
    size = _DISTURBANCES[str(array.dtype)] * (_TIMES if shakes else 1)
    disturbed: NDArray[Any] = (array * (1 + size * noise)).astype(array.dtype)
    return disturbed


def sample(array: NDArray[Any]) -> NDArray[Any]:
    """Copy numbers of an array at equal distances, 65,536 at most.

    Args:
        array: Of any shape.

    Returns:
        Shape (numbers,).
    """
    return array.reshape(-1)[:: -(-array.size // _SAMPLE) or 1].copy()


def find_far(trial: Trial, made: Pass, terms: Mapping[str, float] = MappingProxyType({})) -> str:
    """Say in which answer, gradient or buffer a pass is not the one that is wanted; empty if it is.

    Args:
        trial: What is wanted.
        made: The same of another framework.
        terms: For buffers, by name, the largest number that each was added up of, where that is known.
    """
    others = (*trial.disturbed, *trial.shaken)
    for place, wanted in trial.wanted.answers.items():
        mine = made.answers[place]
        if wanted.dtype.kind == "f":
            is_close = _is_close(wanted, mine, [each.answers[place] for each in trial.disturbed], 0.0)
        else:
            is_close = _is_same(wanted, mine, [each.answers[place] for each in others])
        if not is_close:
            return "its answer" if len(trial.wanted.answers) == 1 else f"tensor {place} of its answer"
    largest = max(map(_find_size, trial.wanted.gradients.values()), default=0.0)
    for name, wanted in trial.wanted.gradients.items():
        if not _is_close(wanted, made.gradients[name], [each.gradients[name] for each in trial.disturbed], largest):
            return f"the gradient of {name!r}"
    for name, wanted in trial.wanted.buffers.items():
        mine = made.buffers[name]
        if wanted.dtype.kind == "f":
            moved = [each.buffers[name] for each in trial.disturbed]
            is_close = _has_moved_alike(trial.before[name], wanted, mine, moved, terms.get(name, 0.0))
        else:
            is_close = _is_same(wanted, mine, [each.buffers[name] for each in others])
        if not is_close:
            return f"buffer {name!r}"
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
    spread = max((_find_size(each[finite] - wanted[finite]) for each in disturbed), default=0.0)
    if spread > _CHAOS * size:
        return True
    return _find_size(made[finite] - wanted[finite]) <= max(_CLOSE * size, _TIMES * spread, _FLOOR * largest)


def _has_moved_alike(
    before: NDArray[Any], wanted: NDArray[Any], made: NDArray[Any], disturbed: Sequence[NDArray[Any]], terms: float
) -> bool:
    """Whether a buffer has changed as is wanted: beside its size, what one pass changes may be little."""
    finite = np.isfinite(wanted)
    if any((np.isfinite(each) != finite).any() for each in disturbed):
        return True  # nobody can tell
    if (np.isfinite(made) != finite).any():
        return False
    size = max(_find_size(wanted), terms)
    spread = max((_find_size(each[finite] - wanted[finite]) for each in disturbed), default=0.0)
    if spread > _CHAOS * _find_size(wanted):
        return True
    change = _find_size((wanted - before)[finite & np.isfinite(before)])
    return _find_size(made[finite] - wanted[finite]) <= max(_CLOSE * change, _TIMES * spread, _ROUNDING * size)


def _is_same(wanted: NDArray[Any], made: NDArray[Any], others: Sequence[NDArray[Any]]) -> bool:
    """Whether whole or truth values are those that are wanted, where no other inputs change them."""
    steady = np.ones(wanted.shape, bool)
    for each in others:
        steady &= each == wanted
    if (~steady).sum() > _UNSTEADY * steady.size:
        return True
    return bool((made == wanted)[steady].all())
