"""README.md says what the code does."""

from pathlib import Path

from docs.readme_tables import EXAMPLES, optimizer_table, renewed, schedule_table
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.schedules import SCHEDULES

README = Path(__file__).parents[2] / "README.md"


def test_the_table_of_schedules_is_the_codes() -> None:
    text = README.read_text(encoding="utf-8")
    assert schedule_table() in text, "renew it: python -m docs.readme_tables README.md"
    assert renewed(text) == text


def test_the_table_of_optimizers_is_the_codes_and_whole() -> None:
    assert optimizer_table() in README.read_text(encoding="utf-8"), "renew it: python -m docs.readme_tables README.md"
    assert all(f"| `{name}`" in optimizer_table() for name in OPTIMIZERS)


def test_no_schedule_is_left_out() -> None:
    assert sorted(type(example).__name__ for example in EXAMPLES) == sorted(SCHEDULES)
    assert all(f"`{name}`" in schedule_table() for name in SCHEDULES)
