"""The patterns of a group: names of modules that are in it as a whole, and names of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layered_lr.models.parameter import Parameter


def find_patterns(parameters: Sequence[Parameter], owners: Mapping[str, int], group: int) -> list[str]:
    """Return the fewest names that take all parameters of a group and none of another one.

    Args:
        parameters: Of the model, in its order.
        owners: The group of each parameter by its first name; one that is in no group may come along.
        group: Whose patterns these are.
    """
    below: dict[str, set[int]] = {}  # the groups of the parameters under each path
    for parameter in parameters:
        for name in parameter.names:
            for path in _paths(name):
                below.setdefault(path, set()).add(owners.get(parameter.name, group))
    found: dict[str, None] = {}
    for parameter in parameters:
        if owners.get(parameter.name) == group:
            found[next(path for path in _paths(parameter.name) if below[path] == {group})] = None
    return list(found)


def _paths(name: str) -> list[str]:
    """The modules that a parameter is in, from the outermost, and its own name."""
    parts = name.split(".")
    return [".".join(parts[: depth + 1]) for depth in range(len(parts))]
