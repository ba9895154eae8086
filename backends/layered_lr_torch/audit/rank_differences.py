"""How the groups of one rank differ from those of the first one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from layered_lr.findings import Finding
from layered_lr.printed import shown
from layered_lr_torch.audit.meeting import list_ranks

Described: TypeAlias = Mapping[str, Any]
"""What one rank has, from ``ranks.describe``: plain values, as JSON holds them."""

_APART = "The ranks make different updates of the same gradients: their copies of the model drift apart without a word."
_LATER = "The ranks' rates differ from some update on, and their copies of the model drift apart without a word."
_WAITS = "One rank waits for a gradient that another never sends, or does not average it."
_BY_PLACE = "States that are saved and loaded by place go to other parameters; fused steps round otherwise."


class _Difference(NamedTuple):
    """One way in which a rank differs from the first one.

    Args:
        what: It, of rank "it" where rank 0 has something else.
        groups: It is about; the first one is named in ``what``.
        parameters: It is about.
        effect: What it does to the run.
    """

    what: str
    groups: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    effect: str = _APART


def compare(ranks: Sequence[Described], names: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """Compare what all ranks have with what the first one has.

    Args:
        ranks: What each has, in their order.
        names: The first rank's parameters.

    Returns:
        One finding for each difference, with all ranks that have it; and why some ranks were not compared.
    """
    first, others = ranks[0], [rank for rank, each in enumerate(ranks) if each["model"] != ranks[0]["model"]]
    unchecked = []
    if others:
        counts = f"{ranks[others[0]]['parameters']} parameters and not {first['parameters']}"
        unchecked.append(
            f"the groups of {list_ranks(others)}: the model there has other parameters than on rank 0 ({counts})."
        )
    found: dict[_Difference, list[int]] = {}
    for rank, own in enumerate(ranks):
        if rank not in others:
            for difference in _find_differences(own, first, names):
                found.setdefault(difference, []).append(rank)
    mend = "make the groups in every rank by the same code from the same numbers, before the first update."
    return [
        Finding(
            "ranks-differ",
            f"{list_ranks(with_it).capitalize()}: {each.what}",
            each.groups,
            each.parameters,
            each.effect,
            mend,
        )
        for each, with_it in found.items()
    ], unchecked


def _find_differences(own: Described, first: Described, names: Sequence[str]) -> Iterator[_Difference]:
    is_alike = own["optimizers"] == first["optimizers"]
    if not is_alike:
        yield _Difference(f"{', '.join(own['optimizers'])} where rank 0 has {', '.join(first['optimizers'])}.")
    if frozen := sorted(set(own["frozen"]) ^ set(first["frozen"])):
        here = "is frozen, and trains" if frozen[0] in own["frozen"] else "trains, and is frozen"
        parameters = tuple(names[place] for place in frozen)
        yield _Difference(f"{parameters[0]} {here} on rank 0.", (), parameters, _WAITS)
    of_schedulers = list(_find_schedulers(own["schedulers"], first["schedulers"]))
    yield from of_schedulers
    mine, theirs = own["groups"], first["groups"]
    if len(mine) != len(theirs):
        counts = f"{len(mine)} group{'s' * (len(mine) != 1)} where rank 0 has {len(theirs)}."
        yield _Difference(counts, tuple(group["label"] for group in theirs))
        return
    members = [[sorted(group["parameters"]) for group in some] for some in (mine, theirs)]
    if members[0] != members[1] and sorted(members[0]) == sorted(members[1]):
        labels = tuple(group["label"] for group in theirs)
        yield _Difference("the groups are in another order than on rank 0.", labels, (), _BY_PLACE)
        mine = [mine[members[0].index(each)] for each in members[1]]
    yield from _find_moved(mine, theirs, names)
    yield from _find_options(mine, theirs, is_alike)
    rates = [[each["options"].get("lr") for each in some] for some in (mine, theirs)]
    if is_alike and not of_schedulers and rates[0] == rates[1]:  # else the later rates follow from it
        yield from _find_curves(own["curves"], first["curves"])


def _find_moved(own: Sequence[Described], first: Sequence[Described], names: Sequence[str]) -> Iterator[_Difference]:
    """Parameters in another group, or in another order."""
    here, there = _places(own), _places(first)
    moved = sorted({place for place in {**here, **there} if here.get(place) != there.get(place)})
    labels = [group["label"] for group in first]

    def say(places: Sequence[int] | None) -> str:
        return "in no group" if not places else "in " + " and ".join(labels[each] for each in places)

    if moved:
        place = next((each for each in moved if each >= 0), -1)  # -1 is a parameter that is not the model's
        name = names[place] if place >= 0 else "a parameter that is not the model's"
        groups = {each for moving in moved for each in (*here.get(moving, ()), *there.get(moving, ()))}
        more = f" (and {len(moved) - 1} other parameters)" if len(moved) > 1 else ""
        yield _Difference(
            f"{name} is {say(here.get(place))}, and on rank 0 {say(there.get(place))}{more}.",
            tuple(labels[each] for each in sorted(groups)),
            tuple(names[each] for each in moved if each >= 0),
        )
        return
    pairs = zip(own, first, strict=True)
    if turned := [theirs["label"] for mine, theirs in pairs if mine["parameters"] != theirs["parameters"]]:
        yield _Difference(
            f"{turned[0]} has its parameters in another order than on rank 0.", tuple(turned), (), _BY_PLACE
        )


def _places(groups: Sequence[Described]) -> dict[int, list[int]]:
    """The numbers of the groups that have each parameter."""
    found: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        for place in group["parameters"]:
            found.setdefault(place, []).append(number)
    return found


def _find_options(own: Sequence[Described], first: Sequence[Described], is_alike: bool) -> Iterator[_Difference]:
    """Rates, decay and other settings of groups; of optimizers of two kinds those that both have."""
    said: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for mine, theirs in zip(own, first, strict=True):
        different = _differing(mine["options"], theirs["options"], is_alike)
        if "lr" in different:
            different.pop("initial_lr", None)  # which follows from it
        for name, values in different.items():
            said.setdefault(name, f"{theirs['label']} has {values}")
            found.setdefault(name, []).append(theirs["label"])
    for name, labels in found.items():
        more = f" (and {len(labels) - 1} more groups)" if len(labels) > 1 else ""
        yield _Difference(f"{said[name]}{more}.", tuple(labels))


def _find_schedulers(own: Sequence[Described], first: Sequence[Described]) -> Iterator[_Difference]:
    here, there = (", ".join(each["kind"] for each in some) or "no scheduler" for some in (own, first))
    if here != there:
        yield _Difference(f"{here} where rank 0 has {there}.", (), (), _LATER)
        return
    for mine, theirs in zip(own, first, strict=True):
        for values in _differing(mine["state"], theirs["state"]).values():
            yield _Difference(f"{mine['kind']} has {values}.", (), (), _LATER)


def _find_curves(own: Sequence[Described], first: Sequence[Described]) -> Iterator[_Difference]:
    """Later rates that differ, where all that is to be seen now is alike."""
    for mine, theirs in zip(own, first, strict=False):
        if mine["digest"] == theirs["digest"] or mine["labels"] != theirs["labels"]:
            continue
        there = {
            step: [place for place, pair in enumerate(zip(*rates, strict=True)) if pair[0] != pair[1]]
            for step, *rates in zip(theirs["steps"], mine["rates"], theirs["rates"], strict=False)
        }
        groups = sorted({place for places in there.values() for place in places})
        step = next((step for step, places in there.items() if places), None)
        if step is None or mine["steps"] != theirs["steps"]:
            yield _Difference(f"{mine['kind']} has other rates in later updates than on rank 0.", (), (), _LATER)
            continue
        row = theirs["steps"].index(step)
        place = there[step][0]
        values = f"lr={mine['rates'][row][place]:g} at step {step}, and {theirs['rates'][row][place]:g} on rank 0"
        labels = tuple(mine["labels"][each] for each in groups)
        yield _Difference(f"{mine['kind']} gives {mine['labels'][place]} {values}.", labels, (), _LATER)


def _differing(own: Described, first: Described, takes_all: bool = True) -> dict[str, str]:
    """Name the settings that differ, each in words; NaN is NaN."""
    found = {}
    for name in {**first, **own}:
        is_here, is_there = name in own, name in first
        if not (is_here and is_there):
            if takes_all:
                here = f"{name}={shown(own[name])}" if is_here else f"no {name}"
                found[name] = f"{here}, and {shown(first[name]) if is_there else 'none'} on rank 0"
        elif json.dumps(own[name], sort_keys=True) != json.dumps(first[name], sort_keys=True):
            found[name] = f"{name}={shown(own[name])}, and {shown(first[name])} on rank 0"
    return found
