"""Tell the reference what ``value_class`` and ``option_class`` do: their classes take their fields as arguments."""

from __future__ import annotations

from typing import Any

import griffe


class ValueClasses(griffe.Extension):
    """griffe, which reads the sources without running them, knows the decorator of the standard library alone."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Read ``@value_class`` and ``@option_class`` as ``@dataclass``."""
        for decorator in cls.decorators:
            if decorator.callable_path.rpartition(".")[2] in ("value_class", "option_class"):
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Read ``option(default=3, help=...)`` as ``3``."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            said = {part.name: part.value for part in value.arguments if isinstance(part, griffe.ExprKeyword)}
            attr.value = said.get("default")
