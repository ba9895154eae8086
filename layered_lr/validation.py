"""Immutable, validated value classes: pydantic checks, the messages are in this library's words."""

from __future__ import annotations

import difflib
import functools
import reprlib
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform

from layered_lr.errors import LayeredLRError, SpecError

T = TypeVar("T")


def unwrap_scalar(value: Any) -> Any:
    """A NumPy scalar as Python's own number; everything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


# The numbers that specs are made of. Strict: neither a string nor a bool is ever taken for a number.
NonNegative = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0)]
Positive = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, gt=0)]
Probability = Annotated[float, BeforeValidator(unwrap_scalar), Field(strict=True, allow_inf_nan=False, ge=0, le=1)]
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


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is nearest to a misspelt one, if any is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" Did you mean 'x'?"`` for the known name that is nearest, or nothing."""
    near = find_nearest(name, known)
    return f" Did you mean {near!r}?" if near else ""


def _explain(cls: type, error: ValidationError) -> LayeredLRError:
    """The first thing that is wrong, as: what, which value, what is allowed."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])  # it explains the others
    context = first.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, LayeredLRError):
        return cause
    known = [f.name for f in fields(cls) if f.init]
    hints = {f.name: f.type for f in fields(cls)}
    where = first["loc"][0] if first["loc"] else ""
    if isinstance(where, int):  # given by position
        where = ([f.name for f in fields(cls) if f.init and not f.kw_only] + known)[where]
    where, what = str(where), getattr(cls, "__called__", cls.__name__)
    if first["type"] == "unexpected_keyword_argument":
        return SpecError(f"{what} has no {where!r}.{did_you_mean(where, known)} It takes: {', '.join(known)}.")
    if first["type"] == "unexpected_positional_argument":
        named = [f.name for f in fields(cls) if f.init and f.kw_only]
        return SpecError(f"{what} takes fewer positional arguments: name the others ({', '.join(named)}).")
    if first["type"] in ("missing", "missing_argument"):
        return SpecError(f"{what} needs {where!r}. It takes: {', '.join(known)}.")
    if first["type"] == "multiple_argument_values":
        return SpecError(f"{what} was given {where!r} twice, by position and by name.")
    template = _ALLOWED.get(first["type"])
    if (
        first["type"].endswith("_equal")
        and isinstance(first["input"], int)
        and "int" in str(hints.get(where, "")).lower()
    ):
        template = template and template.replace("finite", "whole")
    allowed = template.format(**context) if template else first["msg"].removeprefix("Input should be ")
    return SpecError(f"{what}({where}={reprlib.repr(first['input'])}): {where} must be {allowed}.")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen dataclass that checks its fields when made and raises ``SpecError``.

    It is a standard dataclass in every other way: equal by value, hashable, ``dataclasses.replace`` works
    and checks again. ``__post_init__`` may raise ``SpecError`` for what concerns several fields at once. Messages
    name the class, or what ``__called__`` says.
    """
    config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    checked: Any = pydantic_dataclass(frozen=True, config=config)(cls)
    initialise: Callable[..., None] = checked.__init__

    @functools.wraps(initialise)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
        except ValidationError as error:
            raise _explain(type(self), error) from None

    checked.__init__ = checked_init
    return checked  # type: ignore[no-any-return]
