"""What the value of each option of a run may be; ``options.py`` declares them.

Each function takes what the user gave, and returns what the run uses. What is not allowed is a ``Refused`` or a
``SpecError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.training.import_paths import imported, is_import_path
from layered_lr.training.in_file import by_hand
from layered_lr.training.option import Refused, number

if TYPE_CHECKING:
    from layered_lr.training.callback import Callback


_YES_OR_NO = {"true": True, "false": False}


def read_backend(value: Any) -> str:
    """The name of a backend."""
    from layered_lr.registry import check_name  # pydantic

    check_name(value)
    return str(value)


def read_model(value: Any) -> Any:
    """The name of a model, or what builds one; an import path is imported."""
    from layered_lr.models.nn_modules import framework_of

    path = value
    if isinstance(path, str) and is_import_path(path):
        value = imported(by_hand("model", path), "model")
    if framework_of(value):
        where = "" if path is value else f" at {path!r}"
        raise SpecError(
            f"model: got a {type(value).__name__} object{where}; give what builds it, such as model=lambda: "
            "make_model(), so that every run starts from the beginning."
        )
    if isinstance(value, str) or callable(value):
        return value
    raise SpecError(f"model={shown(value)}: must be the name of a model, or a callable that builds an nn.Module.")


def read_pretrained(value: Any) -> str | bool:
    """Whether to load pretrained weights, or which."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _YES_OR_NO:  # of a command's flag
        return _YES_OR_NO[value.strip().lower()]
    if isinstance(value, str | Path) and str(value).strip():
        return str(value)
    raise Refused("true, false, the name of weights, or the path of a file")


def read_head(value: Any) -> str:
    """The path of the head, or ``"auto"``."""
    if isinstance(value, str) and value.strip():
        return value
    raise Refused("'auto', or the path of a linear layer, such as 'classifier.6'")


read_probability = number("a number from 0 to 1", lambda value: 0 <= value <= 1)


def read_dropout(value: Any) -> float | dict[str, float] | None:
    """A probability, or probabilities by pattern."""
    from layered_lr.models.patterns import check_pattern

    if value is None:
        return None
    if isinstance(value, Mapping):
        if not value:
            raise Refused("a number from 0 to 1, or numbers by pattern, at least one")
        return {check_pattern(pattern, "dropout"): read_probability(number) for pattern, number in value.items()}
    return float(read_probability(value))


def read_initialise(value: Any) -> str | dict[str, str] | None:
    """A method of initialisation, or methods by pattern."""
    if value is None:
        return None
    from layered_lr.models.initialise import METHODS
    from layered_lr.models.patterns import check_pattern
    from layered_lr.spelling import did_you_mean

    for method in value.values() if isinstance(value, Mapping) else (value,):
        if not isinstance(method, str) or method not in METHODS:
            hint = did_you_mean(method, METHODS) if isinstance(method, str) else ""
            raise SpecError(
                f"initialise={shown(value)}: must be one of {', '.join(METHODS)}, or a table of these by pattern.{hint}"
            )
    if not isinstance(value, Mapping):
        return str(value)
    if not value:
        raise Refused("a method's name, or methods by pattern, at least one")
    return {check_pattern(pattern, "initialise"): str(method) for pattern, method in value.items()}


def read_device(value: Any) -> str:
    """A device of torch's, or ``"auto"``."""
    if isinstance(value, str) and (value in ("auto", "cpu") or value.split(":")[0] in ("cuda", "mps", "xpu")):
        return value
    raise SpecError(f"device={shown(value)}: must be 'auto', 'cpu' or 'cuda' (or 'cuda:1' and the like, on torch).")


def read_save(value: Any) -> Path | None:
    """A path of a file that can be written: found out before the training, not after it."""
    if value is None:
        return None
    from layered_lr.outputs import check_output
    from layered_lr.training.result_files import holds_a_result

    return check_output("save", by_hand("save", value), is_ours=holds_a_result)


def read_augment(value: Any) -> Any:
    """Whether to augment, or the function that does; an import path is imported."""
    path = value
    if isinstance(path, str) and is_import_path(path):
        value = imported(by_hand("augment", path), "augment")
    if value is None or isinstance(value, bool) or (callable(value) and not isinstance(value, type)):
        return value
    raise SpecError(
        f"augment={shown(path)}: must be true, false, or a function fn(image, rng) that gives an image back (in a "
        "recipe package.module:function); a transform of torchvision is ll.Transform(transform)."
    )


def read_metrics(value: Any) -> Mapping[str, Any]:
    """Metrics by name."""
    if value == () or value is None:
        return {}
    from layered_lr.training.metrics import check_metrics  # NumPy

    return check_metrics(value)


def read_callbacks(value: Any) -> tuple[Callback, ...]:
    """Callbacks, checked."""
    from layered_lr.training.callback import check_callbacks

    return check_callbacks(value)


def read_log(value: Any) -> tuple[str, ...]:
    """Words that name loggers."""
    if value == ():
        return ()
    from layered_lr.training.loggers.words import check_words

    return check_words(value)
