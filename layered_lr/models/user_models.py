"""Models that a callable of the user builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import Module, framework_of, parameters_of
from layered_lr.printed import shown

_COMPLEX = {"float32": "complex64", "float64": "complex128"}
"""The complex dtype of the same width."""


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


def check_dtypes(model: Module, dtype: str) -> None:
    """Refuse a user's model whose parameters a run would train in another dtype than they have.

    float32 is what models have where nobody chose: it may become float64.

    Args:
        model: Of either framework.
        dtype: The run's, ``"float32"`` or ``"float64"``.

    Raises:
        Unsupported: A parameter has another dtype than the run's, such as bfloat16.
    """
    allowed = {dtype, _COMPLEX[dtype], "float32", "complex64"}
    for parameter, _ in parameters_of(model):
        if parameter.dtype.startswith(("float", "bfloat", "complex")) and parameter.dtype not in allowed:
            raise Unsupported(
                f"model: parameter {parameter.name!r} is {parameter.dtype}, and this run trains in {dtype}: it would "
                "be another model. Make it in float32 and give precision='bfloat16' (autocast) or 'float64'; or train "
                "it as it is in a loop of your own, by ll.compile."
            )
