"""Prepares what is printed: makes texts from outside harmless, and long values short.

A name may come from a file that somebody else wrote. In a terminal its control characters move the cursor, change the
title or hide what stands before them; in an SVG they make the file invalid; in a spreadsheet ``=`` begins a formula.
"""

from __future__ import annotations

import csv
import io
import reprlib
from collections.abc import Iterable

_LONGEST = 80  # characters of a value in a message
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "＝",
    "＋",
    "－",
    "＠",
    "\t",
    "\r",
)  # https://owasp.org/www-community/attacks/CSV_Injection


def harmless(text: str, *, keep: str = "\n") -> str:
    r"""Write each character that does not print as an escape: ``\x1b``, ``\u202e``, ``\udcff``.

    These are the control characters, those that change the direction of writing, those without a width, half of a
    surrogate pair, and every space but the common one.

    Args:
        text: From anywhere.
        keep: Characters to leave as they are: the end of a line, in a text of several lines.

    Example:
        >>> print(harmless("head\x1b[2J"))
        head\x1b[2J
    """
    if text.isprintable():
        return text
    return "".join(each if each in keep or each.isprintable() else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def csv_cell(text: str) -> str:
    """Make a text harmless as a cell of a table: one line, and no formula for a spreadsheet.

    Example:
        >>> csv_cell("=1+1"), csv_cell("head")
        ("'=1+1", 'head')
    """
    line = harmless(text, keep="")
    return f"'{line}" if text.startswith(_FORMULA) else line


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Rows as CSV, with a line feed after each.

    Example:
        >>> csv_text([["step", "loss"], [0, 0.5]])
        'step,loss\n0,0.5\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class _ShortRepr(reprlib.Repr):
    """``reprlib`` with longer texts. A number of thousands of digits, which Python refuses to print, is no error."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = self.maxlong = _LONGEST

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 4096 else f"<a whole number of {x.bit_length():,} bits>"


def shown(value: object) -> str:
    """Return a value as a message shows it: in one line, not long, and never an error, whatever the value is.

    Example:
        >>> shown("SGD"), shown(0.1), shown([1] * 99)
        ("'SGD'", '0.1', '[1, 1, 1, 1, 1, 1, ...]')
    """
    try:
        return harmless(" ".join(_ShortRepr().repr(value).split()))
    except Exception:  # an object of the user may raise anything
        return f"<{type(value).__name__}>"


def name_of(function: object) -> str:
    """The name of a function, or of an object's class, for messages.

    Example:
        >>> name_of(len), name_of(3.5)
        ('len', 'float')
    """
    name: str = getattr(function, "__name__", type(function).__name__)
    return name
