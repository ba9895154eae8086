"""The documentation says what the code does."""

from pathlib import Path

import pytest

from docs.readme_tables import BEGIN, EXAMPLES, TABLES, optimizer_table, pages, renewed, schedule_table
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.schedules import SCHEDULES

RENEW = "renew it: python -m docs.readme_tables"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_tables_of_a_page_are_the_codes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, RENEW


@pytest.mark.parametrize("name", TABLES)
def test_each_table_stands_on_one_page(name: str) -> None:
    found = [page for page in pages() if BEGIN.format(name) in page.read_text(encoding="utf-8")]
    assert len(found) == 1 and TABLES[name]() in found[0].read_text(encoding="utf-8"), RENEW


def test_the_table_of_optimizers_is_whole() -> None:
    assert all(f"| `{name}`" in optimizer_table() for name in OPTIMIZERS)


def test_no_schedule_is_left_out() -> None:
    assert sorted(type(example).__name__ for example in EXAMPLES) == sorted(SCHEDULES)
    assert all(f"`{name}`" in schedule_table() for name in SCHEDULES)
