"""Models that a callable of the user builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import Module, framework_of
from layered_lr.printed import shown


def make_model(make: Callable[[], Any]) -> Module:
    """Call what makes a model.

    Args:
        make: A class or a function, without arguments.

    Returns:
        An ``nn.Module`` of either framework.

    Raises:
        SpecError: It needs arguments, raises something itself, or makes something else.
    """
    name = getattr(make, "__name__", None) or shown(make)
    try:
        made = make()
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's code raises
        hint = ""
        if isinstance(error, TypeError) and "argument" in str(error):
            hint = (
                f" It is called without arguments: give a function that needs none, such as lambda: {name}(...), or on "
                "the command line the name of one in a module."
            )
        raise SpecError(f"model: {name}() failed: {describe_error(error)}.{hint}") from error
    if framework_of(made) is None:
        raise SpecError(
            f"model: the callable made a {type(made).__name__}; must make an nn.Module of torch or OneFlow. Let it "
            "return one."
        )
    return made
