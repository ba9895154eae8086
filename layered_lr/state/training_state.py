"""Where a training stands, without any framework: NumPy arrays by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Arrays, Slots
from layered_lr.errors import CheckpointError

_MOST_SHOWN = 6


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that the next update depends on, after ``step`` updates.

    The position in the data follows from ``step``: batches are a pure function of seed, epoch and place.

    Args:
        step: Updates made so far.
        optimizer: The optimizer's name, such as ``"AdamW"``; what ``slots`` mean.
        weights: Every parameter and buffer, by name.
        slots: What the optimizer keeps of each parameter, by the parameter's name and torch's name of the slot
            (``momentum_buffer``, ``exp_avg``, ...); ``step`` is how many updates the parameter itself has had.
        reactions: What reactive schedules have seen, by group.
        ema: The moving average of ``weights``; empty without one.
        random: States of random generators, by the name of what they belong to; of use there alone.
        history: What was measured so far, by name; the first axis counts.
        about: What the run was, as plain tables: spec, options, versions.
    """

    step: int
    optimizer: str
    weights: Arrays
    slots: Slots
    reactions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ema: Arrays = field(default_factory=dict)
    random: Arrays = field(default_factory=dict)
    history: Arrays = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Every array that training goes on from, with what to call it in a message."""
        yield from ((f"weight {name!r}", array) for name, array in self.weights.items())
        yield from ((f"average of {name!r}", array) for name, array in self.ema.items())
        for parameter, slots in self.slots.items():
            yield from ((f"{slot} of {parameter!r}", array) for slot, array in slots.items())

    def check_finite(self) -> None:
        """Refuse a state that no training can go on from.

        Raises:
            CheckpointError: NaN or infinity in a weight, an average or a slot.
        """
        for what, array in self.arrays():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise CheckpointError(f"{what} holds NaN or infinity.")

    def check_fits(self, own: Arrays, given: Arrays | None = None) -> None:
        """Compare the weights with a model's, by name, shape and dtype.

        Args:
            own: The model's parameters and buffers.
            given: Instead of ``weights``.

        Raises:
            CheckpointError: They differ; each difference is named, up to a few.
        """
        if differences := find_differences(self.weights if given is None else given, own):
            raise CheckpointError(
                f"the state does not fit the model: {summarise(differences)}. "
                "strict=False takes what fits, and starts the rest anew."
            )

    def check_optimizer(self, own: Any) -> None:
        """Compare whose slots they are with a plan's optimizer.

        Raises:
            CheckpointError: Another kind's.
        """
        if any(self.slots.values()) and self.optimizer != type(own).__name__:
            raise CheckpointError(f"the state is of {self.optimizer}, the plan trains with {type(own).__name__}.")

    def check_reactions(self, own: Collection[str]) -> None:
        """Compare the groups whose rates are decided while training.

        Args:
            own: The plan's, by name.

        Raises:
            CheckpointError: They differ.
        """
        if set(self.reactions) != set(own):
            given, mine = (", ".join(sorted(names)) or "none" for names in (self.reactions, own))
            raise CheckpointError(
                f"the state does not fit the plan: groups with reactive schedules are {given} in it, {mine} there."
            )

    def check_slots(self, own: Slots) -> None:
        """Compare the slots with those of an optimizer, by name, shape and dtype, for parameters that have any here.

        Args:
            own: The optimizer's, by parameter. What is not in it is frozen, and may have slots that wait.

        Raises:
            CheckpointError: They differ; each difference is named, up to a few.
        """
        found = [
            f"{difference} (slots of {name!r})"
            for name, slots in self.slots.items()
            if slots and name in own
            for difference in find_differences(slots, own[name], "optimizer")
        ]
        found += [
            f"{slot} of {name!r} has shape {array.shape}, the parameter's is {self.weights[name].shape}"
            for name, slots in self.slots.items()
            if name not in own and name in self.weights
            for slot, array in slots.items()
            if array.shape not in ((), self.weights[name].shape)
        ]
        found += [
            f"{name!r} is no parameter" for name, slots in self.slots.items() if slots and name not in self.weights
        ]
        if found:
            raise CheckpointError(f"the state does not fit the optimizer: {summarise(found)}.")


def find_differences(given: Arrays, own: Arrays, whose: str = "model") -> list[str]:
    """What is new, gone or of another kind in ``given``, seen from who has ``own``; empty if nothing."""
    gone = [f"{name!r} is not in it" for name in own if name not in given]
    new = [f"{name!r} is not in the {whose}" for name in given if name not in own]
    kinds = [
        f"{name!r} is {_describe(given[name])}, the {whose}'s is {_describe(array)}"
        for name, array in own.items()
        if name in given and _describe(given[name]) != _describe(array)
    ]
    return gone + new + kinds


def summarise(differences: list[str]) -> str:
    """A few of them, and how many more there are."""
    rest = len(differences) - _MOST_SHOWN
    return "; ".join(differences[:_MOST_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _describe(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"
