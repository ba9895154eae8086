"""Reading of files that may be missing, damaged or foreign."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layered_lr.errors import DataError, LayeredLRError


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes one line: ``DataError: <path> is not <expected>, or damaged (<why>)``.

    Every Exception is meant: of a damaged file zipfile, zlib, tokenize and NumPy raise a dozen kinds, none of
    them documented as complete.
    """
    try:
        yield
    except LayeredLRError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason(error)}).") from None
    except Exception as error:
        raise DataError(f"{path} is not {expected}, or is damaged ({reason(error)}): make or copy it again.") from None


def reason(error: BaseException) -> str:
    """Kind and message of an error in one line of at most 200 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:199]}…"
