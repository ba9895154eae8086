"""A certificate as text and page: the verdict says what its reason says, and pictures show what moves."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.parity.pictures import _line, _shares, not_drawn, pictures
from layered_lr.parity.report import _CAUSES, comparison_text, html_text
from layered_lr.parity.verdict import Cause, Departure, _cause_in_run
from tests.support.page_cases import certificate_of

pytest.importorskip("matplotlib")


def traces(**changes: Any) -> list[Any]:
    one = {"backend": "one", "steps": 5, "ended": "", "grad_norms": np.ones((5, 1))}
    return [SimpleNamespace(**one), SimpleNamespace(**{**one, "backend": "other", **changes})]


@pytest.mark.parametrize(
    ("observable", "step", "changes", "cause", "said"),
    [
        ("gradient norm", 3, {}, "backward", "the backward pass differs"),
        ("loss", 0, {}, "forward", "the forward pass differs"),
        ("loss", 3, {}, "data", "another batch"),
        ("loss", 3, {"steps": 3, "ended": "the loss is NaN"}, "forward", "forward pass differs"),
        ("update norm", 3, {}, "state", "the same gradients make another update"),
    ],
)
def test_the_cause_and_the_reason_say_the_same(
    observable: str, step: int, changes: dict[str, Any], cause: str, said: str
) -> None:
    first = Departure(observable, step, "head", None, 1.0, 0.1, "float32")
    found, reason = _cause_in_run(first, *traces(**changes))
    assert found == cause and said in reason


def test_every_cause_has_words() -> None:
    assert set(_CAUSES) == set(get_args(Cause))


def test_text_and_page_name_the_cause_as_the_reason_does() -> None:
    found = certificate_of(12, faulty=True)
    for text in (comparison_text(found), html_text(found)):
        assert "different – backward pass, first seen at update 3, group rest" in text and "forward" not in text
        assert "the same loss has another gradient at update 3: the backward pass differs" in text


def test_a_page_is_written_over_pages_of_this_library_alone(tmp_path: Path) -> None:
    found = certificate_of(12)
    for _ in range(2):
        assert found.to_html(tmp_path / "own.html") == (tmp_path / "own.html").read_text(encoding="utf-8")
    (tmp_path / "mine.html").write_text("<!DOCTYPE html>")
    with pytest.raises(ll.SpecError, match="that this library has not written"):
        found.to_html(tmp_path / "mine.html")


def test_sentences_say_how_the_tolerance_was_found() -> None:
    text = " ".join(comparison_text(certificate_of(12)).split())
    for sentence in (
        "The tolerance is measured, not chosen.",
        "Differences below the noise are reported as none.",
        "perturbed by 66 times the rounding error",
        "largest difference / what rounding allows",
    ):
        assert sentence in text


def test_what_is_frozen_is_named_and_not_drawn() -> None:
    found = certificate_of(12)
    labels = [re.search('aria-label="([^"]*)"', svg)[1] for svg in pictures(found)]  # type: ignore[index]
    (said,) = (sentence for sentence in not_drawn(found) if "Frozen" in sentence)
    for name in ("features.00.conv", "features.01.conv", "features.02.conv"):
        assert name in said and not any(name in label for label in labels)
    assert "features.03.conv" not in said and "Weights of head by update" in labels
    assert not_drawn(certificate_of(1)) == []


def test_a_difference_of_zero_is_drawn_at_zero() -> None:
    found = certificate_of(12)
    axes = _shares(found, found.pair("oneflow-eager", "oneflow-graph")).axes[0]
    lines = [line for line in axes.get_lines() if line.get_label() != "above: different"]
    assert all((np.asarray(line.get_ydata()) == 0).all() for line in lines) and len(lines) == 6
    assert axes.get_ylim()[0] < 0 and 0 in axes.get_yticks()


def test_no_two_of_many_lines_look_the_same() -> None:
    looks = {str((_line(rank)["color"], _line(rank)["linestyle"])) for rank in range(14)}
    assert len(looks) == 14
