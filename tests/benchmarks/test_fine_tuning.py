"""docs/measured.md shows the runs of ``benchmarks.fine_tuning``, and what they reached."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks import fine_tuning
from benchmarks.fine_tuning import BEGIN, END, PAGE, read_rows, table

LEAST_ACCURACY = 0.80  # of the recipe, after its five epochs


def test_the_page_shows_the_rows_that_were_measured() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    assert shown.strip() == table(read_rows()).strip()


def test_the_recipe_reached_its_accuracy_and_the_graph_makes_the_same_updates() -> None:
    rows = read_rows()
    reached = [row["accuracies"][-1] for row in rows if row.get("candidate") == "recipe"]
    assert len(reached) >= 2 and statistics.median(reached) >= LEAST_ACCURACY
    assert [row["same"] for row in rows if row.get("compared") == "oneflow-graph"][-1:] == [True]


def test_a_run_that_has_a_row_is_not_made_again(monkeypatch: Any, tmp_path: Any) -> None:
    made: list[tuple[str, int]] = []

    def measure(name: str, seed: int, data: str, weights: str) -> dict[str, Any]:
        made.append((name, seed))
        return {"candidate": name, "seed": seed, "lr": 0.1, "accuracies": [0.5, 0.25]}

    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    monkeypatch.setattr(fine_tuning, "measure", measure)
    monkeypatch.setattr(fine_tuning, "PAGE", page)
    monkeypatch.setattr(fine_tuning, "ROWS", tmp_path / "rows.jsonl")
    words = ["--data", "d.npz", "--weights", "w.pth", "--seeds"]
    fine_tuning.main([*words, "0"])
    fine_tuning.main([*words, "0", "1"])
    assert made == [(name, seed) for seed in (0, 1) for name in fine_tuning.candidates()]
    assert page.read_text(encoding="utf-8").count("0.250 (0.250 to 0.250)") == len(fine_tuning.candidates())
