"""What torch's containers of modules and parameters have beside attributes: places, names, a length."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping
from typing import Any, Final

from layered_lr_oneflow.translated_parts import refuse_change
from layered_lr_oneflow.translated_program import CONSTANTS


class _Container:
    """Holds modules or parameters under their names."""

    _modules: Mapping[str, Any]
    _parameters: Mapping[str, Any]

    def __len__(self) -> int:
        """Return how many it holds."""
        return len(_list_held(self))

    def __setitem__(self, place: Any, held: Any) -> None:
        """Refuse another module or parameter, which the forward pass would not follow.

        Raises:
            Unsupported: Always.
        """
        raise refuse_change(self, f"puts something else at {place!r} of")


def _list_held(container: _Container) -> dict[str, Any]:
    modules = {name: each for name, each in container._modules.items() if name != CONSTANTS}
    return modules or dict(container._parameters)


class Series(_Container):
    """What ``Sequential``, ``ModuleList`` and ``ParameterList`` have of a list."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over what it holds."""
        return iter(_list_held(self).values())

    def __getitem__(self, place: Any) -> Any:
        """Return what is at a place, or a list of what is at a slice of places."""
        return list(_list_held(self).values())[place]


class Table(_Container):
    """What ``ModuleDict`` and ``ParameterDict`` have of a dictionary."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(_list_held(self))

    def __getitem__(self, name: str) -> Any:
        """Return what has a name."""
        return _list_held(self)[name]

    def __contains__(self, name: object) -> bool:
        """Whether something has a name."""
        return name in _list_held(self)

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return _list_held(self).keys()

    def values(self) -> Any:
        """Return what it holds."""
        return _list_held(self).values()

    def items(self) -> Any:
        """Return what it holds, each with its name."""
        return _list_held(self).items()


CONTAINERS: Final[Mapping[str, type]] = {
    **dict.fromkeys(("Sequential", "ModuleList", "ParameterList"), Series),
    **dict.fromkeys(("ModuleDict", "ParameterDict"), Table),
}
"""By the names of torch's classes."""
