"""Models that a callable of the user builds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.nn_modules import Module, framework_of, parameters_of
from layered_lr.models.parameter import Parameter
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


def check_all_float64(model: Module) -> None:
    """Refuse to make a model of float64 of one that is narrower than float32, where nobody chose.

    Args:
        model: Of either framework.

    Raises:
        Unsupported: A parameter has another dtype than float32 and float64, such as bfloat16.
    """
    for parameter in _list_floats(model):
        if parameter.dtype not in ("float32", "float64", "complex64", "complex128"):
            raise Unsupported(
                f"model: parameter {parameter.name!r} is {parameter.dtype}, and precision='float64' makes float64 only "
                "of float32. Make the model in float32, or leave precision out: then it trains as it is."
            )


def find_single_dtype(model: Module, dtype: str) -> str:
    """Find the one dtype in which OneFlow trains a user's model: float64 where the run or the model says so.

    Args:
        model: Of either framework.
        dtype: The run's, ``"float32"`` or ``"float64"``.

    Raises:
        Unsupported: A parameter has another dtype than these two, or some have one and some the other.
    """
    found: dict[str, str] = {}
    for parameter in _list_floats(model):
        if parameter.dtype not in ("float32", "float64"):
            raise Unsupported(
                f"model: parameter {parameter.name!r} is {parameter.dtype}, and OneFlow 0.9 trains only float32 and "
                "float64. Make the model in one of these, or use a torch backend, which trains it as it is."
            )
        found.setdefault(parameter.dtype, parameter.name)
    if dtype == "float64" or len(found) < 2:
        return "float64" if dtype == "float64" or "float64" in found else "float32"
    raise Unsupported(
        f"model: parameter {found['float32']!r} is float32 and {found['float64']!r} is float64, and OneFlow 0.9 has no "
        "operators for both together. Give precision='float64', which makes all of them float64, or use a torch "
        "backend, which trains the model as it is."
    )


def check_judged_dtype(parameters: Iterable[Parameter], dtype: str) -> None:
    """Refuse to compare backends with a model in another dtype than the one in which they are judged.

    Args:
        parameters: The model's.
        dtype: The comparison's, ``"float32"`` or ``"float64"``.

    Raises:
        Unsupported: A parameter has another dtype.
    """
    for parameter in parameters:
        if not _is_float(parameter) or parameter.dtype in (dtype, _COMPLEX[dtype]):
            continue
        mend = (
            "Give precision='float64'."
            if parameter.dtype in ("float64", "complex128")
            else "Make the model in float32 for the comparison; with torch, bfloat16 arithmetic is compared by "
            "precision='bfloat16'."
        )
        raise Unsupported(
            f"compare: parameter {parameter.name!r} is {parameter.dtype}, and this comparison judges in {dtype}. {mend}"
        )


def _list_floats(model: Module) -> list[Parameter]:
    return [parameter for parameter, _ in parameters_of(model) if _is_float(parameter)]


def _is_float(parameter: Parameter) -> bool:
    return parameter.dtype.startswith(("float", "bfloat", "complex"))
