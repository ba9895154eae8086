"""Functions that users give to schedules: kept by import path where they have one, so that they are data."""

from __future__ import annotations

import functools
import importlib
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.schedules.arithmetic import Value

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, repr=False)
class Reference:
    """A function by its import path: equal, hashable and savable by that path; imported when first called.

    Args:
        path: ``"package.module:name"``.
    """

    path: str

    def __repr__(self) -> str:
        return repr(self.path)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return resolved(self.path)(*args)


@functools.cache
def resolved(path: str) -> Callable[..., Any]:
    """The function at an import path.

    Raises:
        SpecError: the module cannot be imported, has no such name, or the name is not callable.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise SpecError(f"function {path!r}: module {module_name!r} cannot be imported ({error!r}).") from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise SpecError(f"function {path!r}: module {module_name!r} has no {name!r}.")
        found = getattr(found, part)
    if not callable(found):
        raise SpecError(f"function {path!r} is a {type(found).__name__}, not a function.")
    return found  # type: ignore[no-any-return]


def import_path(function: Any) -> str | None:
    """``"package.module:name"`` where an import finds this very object; ``None`` for lambdas, local functions, ...

    What the running script itself defines has no path: no other process could import it from ``__main__``.
    """
    if isinstance(function, Reference):
        return function.path
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else None


def function_of(value: Any) -> Any:
    """A function, or a ``Reference`` to one where it has an import path or is given as one."""
    if isinstance(value, str) and _PATH.fullmatch(value):
        return Reference(value)
    if not callable(value):
        raise PydanticCustomError("function", "Input should be a function, or its import path 'package.module:name'")
    path = import_path(value)
    return Reference(path) if path else value


# A field that takes a function or its import path; in the schedule it is a Reference, or a function without a path.
UserFunction: TypeAlias = Annotated[Callable[[Any], Any] | str, PlainValidator(function_of)]


def evaluate(where: str, function: Any, step: Value) -> Value:
    """What a user's function gives at a step, or at each of (n,) steps; equal neighbours are asked once.

    Whole steps are given as ints, as torch gives them.

    Args:
        where: The schedule and argument, for messages: ``"LambdaLR(lr_lambda=...)"``.
        function: The user's function, or a ``Reference``.
        step: A float, or a float64 array (n,).

    Raises:
        SpecError: the function raises, or gives something that is not a finite number >= 0; names the step.
    """
    if isinstance(function, Reference):
        function = resolved(function.path)
    if type(step) is float:
        return _asked(where, function, step)
    if not len(step):
        return step
    starts = np.concatenate([[0], np.flatnonzero(step[1:] != step[:-1]) + 1])
    values: Float64 = np.array([_asked(where, function, one) for one in step[starts].tolist()])
    return values if len(starts) == len(step) else np.repeat(values, np.diff(np.append(starts, len(step))))


def _asked(where: str, function: Callable[[Any], Any], step: float) -> float:
    if step.is_integer():
        step = int(step)
    try:
        value = function(step)
    except Exception as error:  # whatever the user's code raises
        raise SpecError(f"{where} raised {error!r} at step {step}.") from error
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    return _number(where, value, step)


def _number(where: str, value: Any, step: float) -> float:
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except Exception:  # float() of a foreign object may raise anything
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise SpecError(f"{where} gave {value!r} at step {step}: it must give a finite number >= 0.")
    return number
