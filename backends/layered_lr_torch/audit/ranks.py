"""Ranks of a process group whose groups differ, in a loop of the user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import torch

from layered_lr.files import describe_error
from layered_lr.findings import Finding
from layered_lr.printed import name_of
from layered_lr_torch.audit.meeting import Meeting, list_ranks
from layered_lr_torch.audit.rank_differences import compare
from layered_lr_torch.audit.rate_curves import RatesOf, describe_curves
from layered_lr_torch.audit.recipe import AuditedRecipe

PATIENCE: Final = 60.0
"""Seconds that a rank waits for the others, which may not audit at all."""

_NAMES = ("groups", "parameters")  # of a finding, which are tuples


class RanksCompared(NamedTuple):
    """What a comparison of all ranks has found.

    Args:
        findings: The same in each rank.
        unchecked: What could not be compared, and why, each in a sentence.
        ranks: How many there are; 1 where nothing was compared.
    """

    findings: tuple[Finding, ...] = ()
    unchecked: tuple[str, ...] = ()
    ranks: int = 1


def compare_ranks(recipe: AuditedRecipe, rates_of: RatesOf, patience: float | None = None) -> RanksCompared:
    """Compare this rank's groups with those of the others; without a process group nothing is done.

    What each rank has goes through the group's store, and not through its engine: a rank that never comes is missed,
    and is not waited for without end.

    Args:
        recipe: Of this rank.
        rates_of: Follows a scheduler.
        patience: Seconds to wait for the others; None takes ``PATIENCE``.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() < 2:
        return RanksCompared()
    rank, count = distributed.get_rank(), distributed.get_world_size()
    try:
        meeting = Meeting(rank, count, PATIENCE if patience is None else patience)
        names = list(recipe.tensors)
        said, absent = meeting.hold(json.dumps(describe(recipe, rates_of)), lambda texts: _answer(texts, names))
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:  # of the user's own kind of store
        return RanksCompared((), (f"whether the ranks have the same groups: {describe_error(error)}",), count)
    if said is None:
        whom = list_ranks(absent) if rank == 0 else "another rank"
        why = f"{whom} did not call ll.audit within {meeting.patience:g} seconds. Call it in every rank"
        return RanksCompared((), (f"whether the ranks have the same groups: {why}.",), count)
    table = json.loads(said)
    findings = [{**each, **{name: tuple(each[name]) for name in _NAMES}} for each in table["findings"]]
    return RanksCompared(tuple(Finding(**each) for each in findings), tuple(table["unchecked"]), count)


def _answer(texts: Sequence[str], names: Sequence[str]) -> str:
    """What the first rank finds in the descriptions of all, as text."""
    findings, unchecked = compare([json.loads(text) for text in texts], names)
    return json.dumps({"findings": [asdict(each) for each in findings], "unchecked": unchecked})


def describe(recipe: AuditedRecipe, rates_of: RatesOf) -> dict[str, Any]:
    """Return what the ranks must have in common, as plain values; parameters are numbered in their order."""
    places: dict[int, int] = {}
    for place, tensor in enumerate(recipe.tensors.values()):
        places.setdefault(id(tensor), place)
    names = list(recipe.tensors)
    return {
        "model": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "parameters": len(names),
        "frozen": [place for place, tensor in enumerate(recipe.tensors.values()) if not tensor.requires_grad],
        "optimizers": [name_of(type(optimizer)) for optimizer in recipe.optimizers],
        "groups": [
            {
                "label": group.label,
                "options": {key: _plain(each) for key, each in group.options.items() if key not in ("params", "name")},
                "parameters": [places.get(id(tensor), -1) for tensor in group.options["params"]],
            }
            for group in recipe.groups
        ],
        "schedulers": [
            {"kind": name_of(each if callable(each) else type(each)), "state": _state_of(each)}
            for each in recipe.schedulers
        ],
        "curves": list(describe_curves(recipe, rates_of)),
    }


def _plain(value: Any) -> Any:
    """A value as JSON holds it; of what has no such form, its class."""
    if isinstance(value, torch.Tensor):
        value = value.detach().tolist() if value.numel() < 10 else f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return float(value) if hasattr(value, "__float__") else f"a {type(value).__name__}"


def _state_of(scheduler: Any) -> dict[str, Any]:
    """What a scheduler counts and goes by; what it keeps under private names shows in its rates."""
    try:
        state = _plain(scheduler.state_dict())
    except Exception:  # a function, or a class of the user's that has none or cannot say it now
        return {}
    return {key: value for key, value in state.items() if key[:1] != "_"} if isinstance(state, dict) else {}
