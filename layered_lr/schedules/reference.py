"""Functions that users give to schedules. A function with an import path is kept as this path and can be saved."""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import numpy as np
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.schedules.arithmetic import Value

UserCallable: TypeAlias = Callable[..., Any]
"""A user's function of the step; what it returns is checked at each call."""

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True, repr=False)
class Reference:
    """A function by its import path, which says whether two are equal; it is imported when it is first called.

    Args:
        path: ``"package.module:name"``.
        is_trusted: Whether it may be imported: what a file or a table names is not, unless somebody has said so.
    """

    path: str
    is_trusted: bool = field(default=True, compare=False)

    def __repr__(self) -> str:
        return repr(self.path)

    def __call__(self, *args: Any) -> Any:
        """Call the function."""
        return self.load()(*args)

    def load(self) -> UserCallable:
        """Import the function.

        Raises:
            SpecError: It cannot be imported; or a file or a table names it, and nobody has said that it may be.
        """
        if not self.is_trusted:
            raise SpecError(
                f"function {self.path!r}: a file names it, and importing it runs code. If you trust whoever wrote the "
                "file, say so: --trust (load_recipe(..., trust=True), Spec.from_toml(..., trust=True)); or name it "
                "yourself."
            )
        return import_function(self.path)


_trusts: ContextVar[bool] = ContextVar("trusts", default=True)


@contextlib.contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Say whether the functions that are named inside may be imported: false where a file or a table names them."""
    token = _trusts.set(trust)
    try:
        yield
    finally:
        _trusts.reset(token)


@functools.cache
def import_function(path: str) -> UserCallable:
    """Import the function at an import path.

    Raises:
        SpecError: The module cannot be imported, has no such name, or the name is not callable.
    """
    module_name, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # the user's module may fail in any way while it is imported
        raise SpecError(
            f"function {shown(path)}: module {module_name!r} cannot be imported ({error!r}). Give the path of a "
            "module that Python can import."
        ) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise SpecError(f"function {shown(path)}: module {module_name!r} has no {name!r}.")
        found = getattr(found, part)
    if not callable(found):
        raise SpecError(f"function {path!r} is a {type(found).__name__}: it must be a function.")
    function: UserCallable = found
    return function


def find_import_path(function: object) -> str | None:
    """Return ``"package.module:name"`` if importing that path gives this very object, else None.

    Lambdas and local functions have no path. Functions of the running script have none either: no other process can
    import them from ``__main__``.
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


def check_function(value: object) -> UserCallable:
    """Return a ``Reference`` for an import path or a function that has one, and any other function as it is."""
    if isinstance(value, str) and _PATH.fullmatch(value):
        return Reference(value, _trusts.get())
    if isinstance(value, Reference):
        return value
    if not callable(value):
        raise PydanticCustomError("function", "Input should be a function, or its import path 'package.module:name'")
    path = find_import_path(value)
    return Reference(path) if path else value


# A field that takes a function or its import path. The schedule keeps a Reference, or a function without a path.
UserFunction: TypeAlias = Annotated[UserCallable | str, PlainValidator(check_function)]


def evaluate(where: str, function: UserCallable | str, step: Value) -> Value:
    """Call a user's function for a step, or for each of (n,) steps; equal neighbours are called once.

    Whole steps are given as ints, as in torch.

    Args:
        where: The schedule and argument, for messages, such as ``"LambdaLR(lr_lambda=...)"``.
        function: The user's function, or a ``Reference``.
        step: A float, or a float64 array (n,).

    Returns:
        A float, or a float64 array (n,).

    Raises:
        SpecError: The function raises, or returns something that is not a finite number >= 0; names the step.
    """
    if isinstance(function, Reference):
        function = function.load()
    if isinstance(function, str):
        function = import_function(function)
    if type(step) is float:
        return _ask(where, function, step)
    if not len(step):
        return step
    starts = np.concatenate([[0], np.flatnonzero(step[1:] != step[:-1]) + 1])
    values: Float64 = np.array([_ask(where, function, one) for one in step[starts].tolist()])
    return values if len(starts) == len(step) else np.repeat(values, np.diff(np.append(starts, len(step))))


def _ask(where: str, function: UserCallable, step: float) -> float:
    if step.is_integer():
        step = int(step)
    try:
        value = function(step)
    except Exception as error:  # whatever the user's code raises
        raise SpecError(f"{where} raised {error!r} at step {step}: it must return a finite number >= 0.") from error
    if type(value) is float and 0.0 <= value < math.inf:
        return value
    return _check_number(where, value, step)


def _check_number(where: str, value: Any, step: float) -> float:  # Any: whatever float() may accept
    try:
        number = math.nan if isinstance(value, (str, bytes)) else float(value)
    except Exception:  # float() of a foreign object may raise anything
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise SpecError(f"{where} returned {value!r} at step {step}: it must return a finite number >= 0.")
    return number
