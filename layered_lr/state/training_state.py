"""The state of a training, without any framework: NumPy arrays by name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Arrays, DividedArray, Slots, fits_parameter, kind_of
from layered_lr.errors import CheckpointError

_MOST_SHOWN = 6


@dataclass(frozen=True, eq=False)
class TrainingState:
    """Everything that the next update depends on, after ``step`` updates.

    The position in the data follows from ``step``, because batches depend only on seed, epoch and position.

    Args:
        step: Updates made so far.
        optimizer: The name of the optimizer that ``slots`` belong to, such as ``"AdamW"``; empty if nobody knows.
        weights: Every parameter and buffer, by name.
        slots: What the optimizer keeps for each parameter, by the parameter's name and torch's name of the slot
            (``momentum_buffer``, ``exp_avg``, ...). The slot ``step`` counts the updates of this parameter.
        reactions: The numbers that reactive schedules depend on, by group.
        ema: The moving average of ``weights``; empty if there is none.
        random: States of random generators, by framework and device (``torch-cpu``); other frameworks ignore them.
        history: What was measured so far, by name; the first axis is the update.
        about: A description of the run as plain tables: spec, options, versions.
        unsaved: The buffers that ``state_dict()`` leaves out (``persistent=False``), by name. They are in a state all
            the same, because training may change them. They may hold NaN or infinity, as masks do.
        kinds: Names of the optimizers of those parameters that have another one than ``optimizer``, by the parameter.
        masks: Names of buffers in ``weights`` that may hold infinity, such as -inf above the diagonal.
        scaler: What the loss is scaled with under autocast to float16 (``scale``), and how many updates in a row have
            not overflowed (``growth_tracker``); empty where the loss is not scaled.
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
    unsaved: Arrays = field(default_factory=dict)
    masks: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)
    scaler: Mapping[str, float] = field(default_factory=dict)

    def kind_of(self, name: str) -> str:
        """Return the name of the optimizer that a parameter's slots belong to."""
        return self.kinds.get(name, self.optimizer)

    def with_kinds(self, optimizer: str, kinds: Mapping[str, str]) -> TrainingState:
        """Return the same state for other optimizers.

        Args:
            optimizer: The usual one's name.
            kinds: The name of each parameter's optimizer, by the parameter.
        """
        return replace(self, optimizer=optimizer, kinds=find_unusual(optimizer, kinds))

    def rename(self, names: Mapping[str, str]) -> TrainingState:
        """Return the same state with other names of parameters and buffers; those that are not named stay."""

        def renamed(arrays: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(name, name): value for name, value in arrays.items()}

        return replace(
            self,
            weights=renamed(self.weights),
            slots=renamed(self.slots),
            ema=renamed(self.ema),
            unsaved=renamed(self.unsaved),
            kinds=renamed(self.kinds),
            masks=tuple(names.get(name, name) for name in self.masks),
        )

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Yield every array that training continues from and that must be finite, with its name for messages."""
        left_out = {*self.masks, *self.unsaved}
        yield from ((f"weight {name!r}", array) for name, array in self.weights.items() if name not in left_out)
        yield from ((f"average of {name!r}", array) for name, array in self.ema.items() if name not in left_out)
        for parameter, slots in self.slots.items():
            yield from ((f"{slot} of {parameter!r}", array) for slot, array in slots.items())

    def check_finite(self) -> None:
        """Refuse a state with NaN or infinity, from which no training can continue.

        Raises:
            CheckpointError: A weight, an average or a slot contains NaN or infinity.
        """
        for what, array in self.arrays():
            if kind_of(array) in "fc" and not _is_finite(array):
                raise CheckpointError(f"{what} holds NaN or infinity.")

    def check_fits(self, own: Arrays, given: Arrays | None = None) -> None:
        """Compare the weights with a model's, by name, shape and dtype.

        Args:
            own: The model's parameters and buffers.
            given: What to compare instead of ``weights``.

        Raises:
            CheckpointError: They differ. The message names the first differences.
        """
        if differences := find_differences(self.weights if given is None else given, own):
            raise CheckpointError(
                f"the state does not fit the model: {summarise(differences)}.{explain_wrapper(self.weights, own)}"
            )

    def check_optimizer(self, kinds: Mapping[str, str]) -> None:
        """Check that each parameter's slots belong to its optimizer.

        Args:
            kinds: The name of each parameter's optimizer, by the parameter.

        Raises:
            CheckpointError: Some belong to another kind of optimizer.
        """
        given = [name for name, slots in self.slots.items() if slots and name in kinds]
        odd = [name for name in given if kinds[name] != self.kind_of(name)]
        if odd:
            which = "" if len(odd) == len(given) else f" for {odd[0]!r}"
            raise CheckpointError(
                f"the state is of {self.kind_of(odd[0])}{which}, but the plan trains with {kinds[odd[0]]}: give both "
                "the same optimizer."
            )

    def check_reactions(self, own: Collection[str]) -> None:
        """Compare the groups with reactive schedules, whose rates are decided during training.

        Args:
            own: The names of the plan's reactive groups.

        Raises:
            CheckpointError: They differ.
        """
        if set(self.reactions) != set(own):
            given, mine = (", ".join(sorted(names)) or "none" for names in (self.reactions, own))
            raise CheckpointError(
                f"the state does not fit the plan: groups with reactive schedules are {given} in the state, but {mine} "
                "in the plan."
            )

    def check_slots(self, own: Slots) -> None:
        """Compare the slots with those of an optimizer, by name, shape and dtype; parameters without slots are skipped.

        Args:
            own: The optimizer's slots, by parameter. A parameter that is not in it is frozen; its slots are kept.

        Raises:
            CheckpointError: They differ. The message names the first differences.
        """
        found = [
            f"{difference} (slots of {name!r})"
            for name, slots in self.slots.items()
            if slots and name in own
            for difference in find_differences(slots, own[name], "optimizer")
        ]
        found += [
            f"{slot} of {name!r} has shape {array.shape}, but the parameter has {self.weights[name].shape}"
            for name, slots in self.slots.items()
            if name not in own and name in self.weights
            for slot, array in slots.items()
            if not fits_parameter(slot, array.shape, self.weights[name].shape)
        ]
        found += [
            f"{name!r} is not a parameter" for name, slots in self.slots.items() if slots and name not in self.weights
        ]
        if found:
            raise CheckpointError(f"the state does not fit the optimizer: {summarise(found)}.")


def _is_finite(array: Array) -> bool:
    return array.is_finite() if isinstance(array, DividedArray) else bool(np.isfinite(array).all())


def find_unusual(optimizer: str, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return those of the parameters' optimizers that are another one than the usual.

    Args:
        optimizer: The usual one's name.
        kinds: The name of each parameter's optimizer, by the parameter.
    """
    return {name: kind for name, kind in kinds.items() if kind != optimizer}


def find_masks(weights: Arrays, parameters: Collection[str]) -> tuple[str, ...]:
    """Return the names of buffers that hold infinity and no NaN, and are no statistics of a normalisation.

    Args:
        weights: Parameters and buffers.
        parameters: The names of the parameters, all of them.
    """
    known = set(parameters)
    return tuple(
        name
        for name, array in weights.items()
        if name not in known
        and kind_of(array) == "f"
        and not name.endswith(("running_mean", "running_var"))
        and not np.isfinite(array).all()
        and not np.isnan(array).any()
    )


def find_differences(given: Arrays, own: Arrays, whose: str = "model") -> list[str]:
    """Describe each array of ``given`` that is missing, extra, or of another shape or dtype than in ``own``."""
    gone = [f"{name!r} is not in it" for name in own if name not in given]
    new = [f"{name!r} is not in the {whose}" for name in given if name not in own]
    kinds = [
        f"{name!r} is {_describe(given[name])}, but the {whose}'s is {_describe(array)}"
        for name, array in own.items()
        if name in given and _describe(given[name]) != _describe(array)
    ]
    return gone + new + kinds


def explain_wrapper(given: Iterable[str], own: Iterable[str]) -> str:
    """Say what to do where names differ by what a wrapper has put into them; nothing where they differ otherwise.

    Args:
        given: Names of a state.
        own: Names of a model.
    """
    given, own = list(given), list(own)
    if set(given) == set(own) or {_unwrapped(name) for name in given} != {_unwrapped(name) for name in own}:
        return ""
    return (
        " The names differ by parts of a wrapper: torch.compile adds _orig_mod, DataParallel adds module. Give the "
        "model inside of it (model._orig_mod, model.module), both when you save and when you load."
    )


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("_orig_mod", "module"))


def summarise(differences: list[str]) -> str:
    """List the first differences, and say how many more there are."""
    rest = len(differences) - _MOST_SHOWN
    return "; ".join(differences[:_MOST_SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


def _describe(array: Array) -> str:
    return f"{array.dtype} of shape {array.shape}"
