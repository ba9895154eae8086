"""Loggers by a word: ``tensorboard:FOLDER``, as the option ``log`` and the command's flag ``--log`` have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from layered_lr.errors import SpecError
from layered_lr.printed import shown
from layered_lr.spelling import did_you_mean
from layered_lr.training.callback import Callback
from layered_lr.training.in_file import by_hand

KINDS = {"csv": "FILE", "jsonl": "FILE", "tensorboard": "FOLDER", "wandb": "PROJECT", "mlflow": "FOLDER"}
"""The kinds of logs, and what stands behind the colon."""

_FORMS = ", ".join(f"{kind}:{place}" for kind, place in KINDS.items())


def check_words(value: Any) -> tuple[str, ...]:
    """The logs that were given, each a word; every one of them can be opened.

    Raises:
        SpecError: Not a word or words of the form ``kind:place``, no such kind, a place that cannot be, or a file has
            given them that nobody has said is to be trusted.
        ToolUnavailable: What writes the log is not installed.
    """
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Iterable):
        raise SpecError(f"log={shown(value)}: must be a list of {_FORMS}.")
    words = tuple(by_hand("log", word) for word in given)
    for word in words:
        make_logger(word)
    if len(set(words)) < len(words):
        raise SpecError(f"log={shown(list(words))}: the same log is given twice.")
    return words


def make_loggers(words: Iterable[str]) -> tuple[Callback, ...]:
    """A logger for each word."""
    return tuple(map(make_logger, words))


def make_logger(word: Any) -> Callback:
    """The logger that a word names.

    Args:
        word: Such as ``"tensorboard:logs/first"``.

    Raises:
        SpecError: It names none.
        ToolUnavailable: What writes the log is not installed.
    """
    if not isinstance(word, str):
        raise SpecError(f"log: {shown(word)} must be one of {_FORMS}.")
    kind, _, place = word.partition(":")
    if kind not in KINDS:
        raise SpecError(f"log={shown(word)}: must be one of {_FORMS}.{did_you_mean(kind, KINDS)}")
    if not place:
        raise SpecError(f"log={shown(word)}: says no place. Write {kind}:{KINDS[kind]}.")
    if kind == "csv":
        from layered_lr.training.loggers.row_logs import CSV

        return CSV(place)
    if kind == "jsonl":
        from layered_lr.training.loggers.row_logs import JSONLines

        return JSONLines(place)
    if kind == "tensorboard":
        from layered_lr.training.loggers.tensorboard import TensorBoard

        return TensorBoard(place)
    if kind == "wandb":
        from layered_lr.training.loggers.wandb import WandB

        return WandB(place)
    from layered_lr.training.loggers.mlflow import MLflow

    return MLflow(folder=place)
