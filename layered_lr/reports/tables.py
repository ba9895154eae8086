"""A table as text that fits its terminal, and as HTML that fits its screen."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from layered_lr.console import stdout_width
from layered_lr.printed import harmless

if TYPE_CHECKING:
    from rich.box import Box

PIPED_WIDTH = 160
"""Characters a line of a table where stdout is no terminal, and ``COLUMNS`` is not set."""

_GAP = 2
_COMFORT = 24  # characters that a column of words gets before it wraps
_NARROWEST = 8  # characters that a column keeps on the narrowest terminal
_SHORT = 28  # characters up to which a column of HTML does not wrap
_FEW_COLUMNS = 7  # which a tablet has room for


class ReportTable(NamedTuple):
    """Rows under headers. The first column says what a row is about.

    Args:
        headers: Of the columns.
        rows: Texts, one for each column.
        numbers: The headers of columns that are aligned to the right.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()

    def text(self, width: int | None = None) -> str:
        """The table in lines that fit.

        Words wrap inside their column. Numbers and names never do. Columns that do not fit beside each other go into
        a second table below the first one, which names each row again. The text is plain: no colours, no escape codes.

        Args:
            width: Characters a line; None is ``COLUMNS`` where it is set, else the terminal's width, else 160.

        Example:
            >>> print(ReportTable(["group", "lr"], [["stem", "0.1"], ["head", "1"]], frozenset({"lr"})).text(80))
            group   lr
            ------ ---
            stem   0.1
            head     1
        """
        return self._harmless()._text(width or stdout_width() or PIPED_WIDTH)

    def _harmless(self) -> ReportTable:
        """The table with each cell in one line, and without characters that do not print."""
        rows = [[harmless(cell, keep="") for cell in row] for row in self.rows]
        headers = [harmless(header, keep="") for header in self.headers]
        return ReportTable(headers, rows, frozenset(harmless(header, keep="") for header in self.numbers))

    def _text(self, fitting: int) -> str:
        columns = range(len(self.headers))
        smallest = [self._longest_word(column) for column in columns]
        if sum(smallest) + _GAP * (len(smallest) - 1) > fitting:
            smallest = [self._comfort(column) for column in columns]
            smallest[0] = min(smallest[0], max(_NARROWEST, fitting // 3))  # it stands in each table: a long name wraps
        return "\n\n".join(self._drawn(block, smallest, fitting) for block in _blocks(smallest, fitting))

    def _drawn(self, columns: Sequence[int], smallest: Sequence[int], width: int) -> str:
        """A table of some columns, which share what room there is beyond their smallest widths."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        wishes = {column: (smallest[column], self._longest_text(column)) for column in columns}
        table = Table(box=_lines(), show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
        for column, own in _shared(wishes, width).items():
            justify: Literal["right", "left"] = "right" if self.headers[column] in self.numbers else "left"
            table.add_column(Text(self.headers[column]), justify=justify, width=own, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(row[column]) for column in columns))
        out = io.StringIO()
        # Said one by one, since rich looks for a notebook, for Windows and for FORCE_COLOR. The width is the columns'.
        Console(
            file=out, width=10**6, color_system=None, force_terminal=False, force_jupyter=False, legacy_windows=False
        ).print(table)
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines())

    def _longest_word(self, column: int) -> int:
        from rich.cells import cell_len

        return max((cell_len(word) for text in self._texts(column) for word in text.split()), default=0)

    def _longest_text(self, column: int) -> int:
        from rich.cells import cell_len

        return max(map(cell_len, self._texts(column)))

    def _comfort(self, column: int) -> int:
        """How wide a column is in one of several tables: as its longest text, or word where that is long."""
        longest = self._longest_text(column)
        return longest if longest <= _COMFORT else max(self._longest_word(column), _COMFORT)

    def _texts(self, column: int) -> list[str]:
        return [self.headers[column], *(row[column] for row in self.rows)]

    def html(self) -> str:
        """A ``<table>`` in a box. On a narrow screen ``page.css`` makes a card of each row, which names each cell."""
        return self._harmless()._html()

    def _html(self) -> str:
        kinds = [self._kind(column) for column in range(len(self.headers))]
        head = "".join(
            f'<th scope="col" class="{kind}">{html.escape(header)}</th>'
            for header, kind in zip(self.headers, kinds, strict=True)
        )
        body = "\n".join(self._html_row(row, kinds) for row in self.rows)
        size = "many" if len(self.headers) > _FEW_COLUMNS else "few"
        return f'<div class="box {size}"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'

    def _html_row(self, row: Sequence[str], kinds: Sequence[str]) -> str:
        first, *others = zip(row, self.headers, kinds, strict=True)
        cells = "".join(
            f'<td class="{kind}{" empty" * (not cell)}" data-label="{html.escape(header)}">{html.escape(cell)}</td>'
            for cell, header, kind in others
        )
        return f'<tr><th scope="row" class="{first[2]}">{html.escape(first[0])}</th>{cells}</tr>'

    def _kind(self, column: int) -> str:
        """How a column wraps: ``number`` and ``short`` never do, ``long`` does."""
        if self.headers[column] in self.numbers:
            return "number"
        return "long" if max(len(row[column]) for row in self.rows or [self.headers]) > _SHORT else "short"


def _blocks(widths: Sequence[int], width: int) -> Iterator[list[int]]:
    """The columns of each table, the first one in each of them."""
    block, used = [0], widths[0]
    for column in range(1, len(widths)):
        more = _GAP + widths[column]
        if used + more > width and len(block) > 1:
            yield block
            block, used = [0], widths[0]
        block.append(column)
        used += more
    yield block


def _shared(wishes: Mapping[int, tuple[int, int]], width: int) -> dict[int, int]:
    """Each column's width: its smallest one, and a share of the room that is left, up to its longest text.

    Where not even the smallest widths fit, the widest columns become narrower, and cut words into lines.

    Args:
        wishes: Smallest width and longest text of each column.
        width: Of the table.
    """
    room = max(0, width - sum(smallest for smallest, _ in wishes.values()) - _GAP * (len(wishes) - 1))
    widths = {}
    by_need = sorted(wishes.items(), key=lambda item: item[1][1] - item[1][0])
    for place, (column, (smallest, longest)) in enumerate(by_need):
        more = min(longest - smallest, room // (len(by_need) - place))
        widths[column] = smallest + more
        room -= more
    while (over := sum(widths.values()) + _GAP * (len(widths) - 1) - width) > 0:  # even one column is too wide
        widest = max(widths, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] = max(_NARROWEST, widths[widest] - over)
    return {column: widths[column] for column in wishes}


def wrapped(text: str, width: int | None = None, indent: int = 2) -> str:
    """Sentences cut at words to fit the terminal, further lines indented; in one line where stdout is no terminal.

    Characters that do not print are written as escapes.

    Args:
        text: One or more lines.
        width: Characters a line; None is ``COLUMNS`` where it is set, else the terminal's width, else no limit.
        indent: Spaces before further lines.
    """
    import textwrap

    fitting, text = width or stdout_width(), harmless(text)
    if fitting is None:
        return text
    lines = (
        textwrap.wrap(line, fitting, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)
        or [""]
        for line in text.splitlines()
    )
    return "\n".join(line for wrapped_line in lines for line in wrapped_line)


def _lines() -> Box:
    """A line of hyphens below the headers and nothing else, so that every terminal can show it."""
    from rich.box import Box

    rows = ["    "] * 8
    rows[2] = " -  "
    return Box("\n".join(rows), ascii=True)


def shortened(text: str, width: int) -> str:
    """The text, or its beginning and an ellipsis, in at most ``width`` characters and one line."""
    line = harmless(re.sub(r"\s+", " ", text))
    return line if len(line) <= width else f"{line[: width - 1]}…"
