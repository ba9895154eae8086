"""docs/translation.md shows what ``make bench-translation`` measured."""

from __future__ import annotations

import json

from benchmarks.translation.__main__ import BEGIN, END, PAGE, ROWS, table


def test_the_page_shows_the_rows_that_were_measured() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = json.loads(ROWS.read_text(encoding="utf-8"))
    assert shown.strip() == table(rows).strip() and len(shown.strip().splitlines()) == len(rows) + 2
