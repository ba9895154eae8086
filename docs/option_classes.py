"""Tell the reference what ``option_class`` does: its classes take their fields as arguments, as dataclasses do."""

from __future__ import annotations

from typing import Any

import griffe


class OptionClasses(griffe.Extension):
    """griffe, which reads the sources without running them, knows the decorator of the standard library alone."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Read ``@option_class`` as ``@dataclass``."""
        for decorator in cls.decorators:
            if decorator.callable_path.rpartition(".")[2] == "option_class":
                decorator.value = griffe.ExprName("dataclasses.dataclass")

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Read ``option(default=3, help=...)`` as ``3``."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == "option":
            said = {part.name: part.value for part in value.arguments if isinstance(part, griffe.ExprKeyword)}
            attr.value = said.get("default")
