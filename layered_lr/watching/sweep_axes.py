"""What a recipe with lists is swept over: finds the lists that stand where a single value belongs."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from layered_lr.data.sources import find_folder
from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.printed import shown
from layered_lr.spec.groups import group_from_table
from layered_lr.spec.phases import phase_from_table
from layered_lr.spec.spec import RUN_TABLE, Spec
from layered_lr.spec.toml import optimizer_from_table, schedule_from_table
from layered_lr.training.in_file import marked, unmarked
from layered_lr.training.options import RunOptions

Path: TypeAlias = tuple[str | int, ...]

_MOST_RUNS = 10_000
_MOST_LISTS = 8  # in one table
_TABLES: Mapping[str, Callable[[Any], object]] = {"optimizer": optimizer_from_table, "schedule": schedule_from_table}
_ARRAYS: Mapping[str, Callable[[Any], object]] = {
    "groups": group_from_table,
    "phases": phase_from_table,
    "schedulers": schedule_from_table,
}
_NAME_CHARACTERS = re.compile(r"[^\w.=,+-]+", re.ASCII)
_LONGEST_NAME = 60


class Axis(NamedTuple):
    """One setting that has several values.

    Args:
        path: Where it stands in the recipe.
        values: Two or more, or one.
        name: The end of the path that no other setting of the sweep has.
    """

    path: Path
    values: tuple[Any, ...]
    name: str = ""


class Variant(NamedTuple):
    """One run of a sweep.

    Args:
        name: Of its folder.
        settings: Its values, by the names of the axes.
        recipe: The whole recipe.
    """

    name: str
    settings: dict[str, str]
    recipe: dict[str, Any]


def find_variants(recipe: Mapping[str, Any]) -> list[Variant]:
    """Every run that a recipe with lists stands for: each value of each list with each of the others.

    A list where a setting takes one, such as ``betas`` or ``milestones``, is that setting's value, and a list of lists
    is swept over.

    Args:
        recipe: As TOML has it.

    Raises:
        SpecError: There is no list to sweep over, a value is given twice, the runs are too many, all runs would write
            to one place, or one of them cannot be.
    """
    _check_places(recipe)
    axes = _named(find_axes(recipe))
    if not axes:
        raise SpecError(
            "sweep: the recipe has no list of values where a single one belongs, such as lr = [0.1, 0.01]; there is "
            "nothing to sweep over."
        )
    count = 1
    for axis in axes:
        if any(value in axis.values[:place] for place, value in enumerate(axis.values)):
            raise SpecError(f"sweep: {axis.name} = {shown(list(axis.values))} has a value twice.")
        count *= len(axis.values)
    if count > _MOST_RUNS:
        raise SpecError(f"sweep: the lists make {count:,} runs; {_MOST_RUNS:,} are the most.")
    digits = max(2, len(str(count)))
    variants = []
    for number, values in enumerate(itertools.product(*(axis.values for axis in axes)), start=1):
        table = copy.deepcopy(dict(recipe))
        for axis, value in zip(axes, values, strict=True):
            _put(table, axis.path, copy.deepcopy(value))
        settings = {axis.name: _text(value) for axis, value in zip(axes, values, strict=True)}
        said = ",".join(f"{name}={value}" for name, value in settings.items())
        name = f"{number:0{digits}}-{_NAME_CHARACTERS.sub('_', said)}"[:_LONGEST_NAME].rstrip(".")
        try:
            _check_spec({key: value for key, value in table.items() if key != RUN_TABLE})
            _check_run(table.get(RUN_TABLE, {}))
        except LayeredLRError as error:
            raise SpecError(f"sweep: run {said}: {error}") from None
        variants.append(Variant(name, settings, table))
    return variants


def _check_places(recipe: Mapping[str, Any]) -> None:
    """Refuse places that all runs would write to."""
    run = recipe.get(RUN_TABLE, {})
    if not isinstance(run, dict):
        raise SpecError(f"sweep: {RUN_TABLE} must be a table; write [{RUN_TABLE}] above its keys.")
    for name in ("save", "log"):
        if name in run:
            raise SpecError(f"sweep: [{RUN_TABLE}] has {name}, so that all runs would write there. Leave it out.")


def find_axes(recipe: Mapping[str, Any]) -> list[Axis]:
    """The lists of a recipe that stand where a single value belongs, in the order of the recipe.

    Raises:
        SpecError: One table has too many lists to tell.
    """
    work = copy.deepcopy(dict(recipe))
    paths: dict[Path, tuple[Any, ...]] = {}
    for path, check in _units(work):
        for own in _swept(work, path, check):
            paths[own] = tuple(_get(work, own))
            _put(work, own, paths[own][0])
    order = [path for path, _ in _lists(recipe, ())]
    return [Axis(path, paths[path]) for path in order if path in paths]


def _units(value: Any, path: Path = ()) -> Iterator[tuple[Path, Callable[[Any], object]]]:
    """The tables that can be checked alone, those inside of others first."""
    for key, part in value.items():
        here = (*path, key)
        if isinstance(part, dict):
            yield from _units(part, here)
            if key in _TABLES:
                yield here, _TABLES[key]
            elif not path and key == RUN_TABLE:
                yield here, _check_run
        elif isinstance(part, list) and key in _ARRAYS:
            for number, each in enumerate(part):
                if isinstance(each, dict):
                    yield from _units(each, (*here, number))
                    yield (*here, number), _ARRAYS[key]
    if not path:
        yield (), lambda table: _check_spec({key: part for key, part in table.items() if key != RUN_TABLE})


def _swept(work: dict[str, Any], path: Path, check: Callable[[Any], object]) -> list[Path]:
    """The lists of one table that it does not take as they are: as few of them as make it a table that can be."""
    lists = [own for own, value in _lists(_get(work, path), path) if value]
    if len(lists) > _MOST_LISTS:
        raise SpecError(f"sweep: the table {_dotted(path) or 'above all others'} has more than {_MOST_LISTS} lists.")
    for count in range(len(lists) + 1):
        for chosen in itertools.combinations(lists, count):
            tried = copy.deepcopy(work)
            for own in chosen:
                _put(tried, own, _get(tried, own)[0])
            try:
                check(_get(tried, path))
            except LayeredLRError:
                continue
            return list(chosen)
    # Whatever is swept, something else is wrong, and checking the runs will say what.
    return [own for own in lists if len(_get(work, own)) > 1]


def _lists(value: Any, path: Path) -> Iterator[tuple[Path, list[Any]]]:
    """The lists of a recipe by their paths; not the arrays of tables that a spec has, but those inside them."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        here = (*path, key)
        if isinstance(part, dict):
            yield from _lists(part, here)
        elif isinstance(part, list):
            if key in _ARRAYS and part and all(isinstance(each, dict) for each in part):
                yield from _lists(part, here)
            elif isinstance(key, str):
                yield here, part


def _check_run(table: Any) -> object:
    for name in ("data", "initial_weights"):  # a run takes lists of arrays there, which no file holds
        given = table.get(name)
        if isinstance(given, list) or (isinstance(given, dict) and isinstance(given.get("source"), list)):
            raise SpecError(f"{name}: must be no list.")
    if isinstance(table.get("data"), dict):
        find_folder(table["data"])
    return RunOptions(**unmarked(marked(dict(table))))


def _check_spec(table: Any) -> object:
    return Spec.from_dict(table)


def _get(table: Any, path: Path) -> Any:
    for key in path:
        table = table[key]
    return table


def _put(table: Any, path: Path, value: Any) -> None:
    _get(table, path[:-1])[path[-1]] = value


def _named(axes: list[Axis]) -> list[Axis]:
    """The axes with the shortest names that tell them apart."""
    named = []
    for axis in axes:
        others = [other.path for other in axes if other is not axis]
        length = next(
            (n for n in range(1, len(axis.path)) if all(path[-n:] != axis.path[-n:] for path in others)), len(axis.path)
        )
        named.append(axis._replace(name=_dotted(axis.path[-length:])))
    return named


def _dotted(path: Path) -> str:
    return ".".join(str(part + 1 if isinstance(part, int) else part) for part in path)


def _text(value: Any) -> str:
    """A value in a few letters: of a table its type."""
    if isinstance(value, Mapping):
        rest = [f"{key}={_text(part)}" for key, part in value.items() if key != "type"]
        return " ".join([str(value.get("type", "")), *rest]).strip()
    return (
        " ".join(map(_text, value))
        if isinstance(value, list)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )
