"""docs/translation.md shows what ``make bench-translation`` measured."""

from __future__ import annotations

from benchmarks.translation.__main__ import BEGIN, END, PAGE, read_rows, table


def test_the_page_shows_the_rows_that_were_measured() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = read_rows()
    assert shown.strip() == table(rows).strip()
    assert len(shown.strip().splitlines()) == len(rows) + 2


def test_every_row_is_within_its_bounds() -> None:
    rows = [row for row in read_rows().values() if "error" not in row]
    assert rows
    for row in rows:
        for backend in ("oneflow-eager", "oneflow-graph"):
            far = dict(row["float64"][backend])
            assert far.pop("buffers") < 1e-6, row["model"]  # OneFlow's batch normalisation has a float32 momentum
            # Batch normalisations over maps of one pixel amplify rounding: torch's own gradients, with weights one last
            # bit off, are so far from themselves, and another random draw of these bits can be some times as far.
            itself = max(number for kind, number in row.get("itself", {"": 0.0}).items() if kind != "buffers")
            assert max(far.values()) < max(1e-9, 30 * itself), row["model"]
        assert row.get("verdict", "within rounding") == "within rounding", row["model"]
