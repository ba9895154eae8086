"""Tell the reference what ``value_class`` does: its classes take their fields as arguments, as dataclasses do."""

from __future__ import annotations

from typing import Any

import griffe


class ValueClasses(griffe.Extension):
    """griffe, which reads the sources without running them, knows the decorator of the standard library alone."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Read ``@value_class`` as ``@dataclass``."""
        for decorator in cls.decorators:
            if decorator.callable_path.rpartition(".")[2] == "value_class":
                decorator.value = griffe.ExprName("dataclasses.dataclass")
