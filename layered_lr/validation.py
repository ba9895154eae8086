"""Immutable value classes that check their fields: pydantic checks, and this library writes the error messages."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import field, fields
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.guesses import unknown_name
from layered_lr.printed import shown
from layered_lr.scalars import unwrap_scalar

T = TypeVar("T")

# The kinds of numbers in specs. They are strict: a string or a bool is never accepted as a number.
NonNegative = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0)]
Positive = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, gt=0)]
Probability = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
LayerFactor = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, gt=0, le=1)]
Share = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, gt=0, lt=1)]
Decay = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Seed = Annotated[int, BeforeValidator(unwrap_scalar), Field(strict=True, ge=0, lt=2**63)]  # what every generator takes
PositiveInt = Annotated[int, BeforeValidator(unwrap_scalar), Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]

_ALLOWED = {
    "greater_than": "a finite number > {gt:g}",
    "greater_than_equal": "a finite number >= {ge:g}",
    "less_than": "a finite number < {lt:g}",
    "less_than_equal": "a finite number <= {le:g}",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "string_type": "a string",
    "string_too_short": "a string that is not empty",
    "literal_error": "one of {expected}",
}
_WHOLE = ("int", "count")  # a field whose type has one of these words in its name takes whole numbers


def _explain(cls: type, error: ValidationError) -> LayeredLRError:
    """Say the first thing that is wrong: what, which value, and what is allowed."""
    errors = error.errors(include_url=False)
    # An unknown argument often causes the other errors, such as a missing one.
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    context = first.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, LayeredLRError):
        return cause
    known = [f.name for f in fields(cls) if f.init]
    hints = {f.name: f.type for f in fields(cls)}
    where = first["loc"][0] if first["loc"] else ""
    if isinstance(where, int):  # the argument was given by position
        where = ([f.name for f in fields(cls) if f.init and not f.kw_only] + known)[where]
    where, what = str(where), getattr(cls, "__called__", cls.__name__)
    if first["type"] == "unexpected_keyword_argument":
        return SpecError(f"{what} has no {shown(where)}.{unknown_name(_kind(cls), where, known)}")
    if first["type"] == "unexpected_positional_argument":
        named = [f.name for f in fields(cls) if f.init and f.kw_only]
        return SpecError(f"{what} takes fewer positional arguments: give these by name: {', '.join(named)}.")
    if first["type"] in ("missing", "missing_argument"):
        return SpecError(f"{what} needs {where!r}. It takes: {', '.join(known)}.")
    if first["type"] == "multiple_argument_values":
        return SpecError(f"{what} was given {where!r} twice, by position and by name: give it once.")
    template = _ALLOWED.get(first["type"])
    if first["type"].endswith("_equal") and any(word in str(hints.get(where, "")).lower() for word in _WHOLE):
        template = template and template.replace("finite", "whole")
    allowed = template.format(**context) if template else first["msg"].removeprefix("Input should be ")
    return SpecError(f"{what}({where}={shown(first['input'])}): {where} must be {allowed}.")


def _kind(cls: type) -> str:
    """What guesses know a class by: optimizers and schedules have a kind in common."""
    return str(getattr(cls, "__kind__", cls.__name__))


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that checks its fields when it is created, and raises ``SpecError``.

    In all other ways it is a normal dataclass: equal by value, hashable, and ``dataclasses.replace`` works and checks
    again. ``__post_init__`` may raise a ``SpecError`` about several fields together. Messages name the class, or the
    value of its ``__called__``; hints for unknown names know it by its ``__kind__``.
    """
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    checked: Any = pydantic_dataclass(frozen=True, config=config)(cls)  # Any: its __init__ is replaced below
    initialise: Callable[..., None] = checked.__init__

    @functools.wraps(initialise)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
        except ValidationError as error:
            raise _explain(type(self), error) from None

    checked.__init__ = checked_init
    result: type[T] = checked
    return result
