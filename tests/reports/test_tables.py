"""Tables as text: they fit any width, lose nothing, and are plain where they are piped."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.backend.doctor import BackendStatus, doctor_text
from layered_lr.console import stdout_width
from layered_lr.reports.tables import PIPED_WIDTH, ReportTable, wrapped
from tests.support.page_cases import COUNTS, certificate_of, plan_of

ROOT = Path(__file__).parents[2]
TABLE = ReportTable(
    ["group", "lr", "schedule", "applied"],
    [["stem", "0.1", "StepLR(step_size=4, gamma=0.1)", "native"], ["[bold]head[/]", "1e-05", "Constant()", "a table"]],
    frozenset(["lr"]),
)


def words_of(text: str) -> set[str]:
    return set(re.sub(r"-{3,}", " ", text).split())


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
def test_a_table_fits_and_loses_nothing(width: int) -> None:
    text = TABLE.text(width)
    assert max(map(len, text.splitlines())) <= width
    everything = " ".join([*TABLE.headers, *(cell for row in TABLE.rows for cell in row)])
    assert words_of(text) == words_of(everything) or (width == 30 and "StepLR(step_siz" in text and "0.1)" in text)


def test_columns_that_do_not_fit_stand_below_with_the_name_of_each_row() -> None:
    first, second = TABLE.text(30).split("\n\n")[:2]
    assert first.count("stem") == second.count("stem") == 1 and "schedule" in second and "lr" not in second.split()


def test_a_word_that_is_wider_than_the_table_is_cut_into_lines() -> None:
    text = ReportTable(["group"], [["x" * 50]]).text(20)
    assert max(map(len, text.splitlines())) == 20 and text.count("x") == 50


def test_wide_characters_take_two_columns() -> None:
    lines = ReportTable(["group", "lr"], [["层", "1"], ["ab", "2"]], frozenset(["lr"])).text(80).splitlines()
    assert lines[2:] == ["层      1", "ab      2"]


def test_sentences_are_cut_at_words_and_only_where_a_width_is_known() -> None:
    sentence = "one two three " * 20
    assert wrapped(sentence) == sentence
    lines = wrapped(sentence, 30).splitlines()
    assert max(map(len, lines)) <= 30 and " ".join(lines).split() == sentence.split()


def test_the_width_is_columns_or_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stdout_width() is None, "pytest's stdout is no terminal"
    for said, width in (("72", 72), ("0", None), ("wide", None), ("", None)):
        monkeypatch.setenv("COLUMNS", said)
        assert stdout_width() == width


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("width", [80, 100])
def test_plans_and_certificates_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, count: int, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    plan, found = plan_of(count), certificate_of(count, faulty=True)
    assert max(map(len, str(plan).splitlines())) <= width
    assert max(map(len, str(found).splitlines())) <= width
    named = " ".join(str(plan).split())
    for group in plan.groups:
        assert f"{group.name} " in named and f"{group.lr_scale:g}" in named


def test_a_certificate_says_its_answer_before_its_tables_and_is_short() -> None:
    lines = str(certificate_of(60, faulty=True)).splitlines()
    assert "not all the same" in lines[0] and any("backward pass" in line for line in lines[:10])
    assert len(lines) < 70 and "--report" in "\n".join(lines)
    assert "features.03.conv" in str(certificate_of(1 + 11)), "rates of the groups that are farthest off"


def test_a_result_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, torch: Any) -> None:
    from tests.support.models import arrays, mlp

    groups = [ll.Group("1.weight", name="the weights of the first layer"), ll.Group("3.weight", name="second")]
    spec = ll.Spec(ll.SGD(0.1), groups, ll.CosineAnnealingLR(3))
    result = ll.run(spec, "torch-eager", mlp(torch), arrays(), max_steps=3, batch_size=8, device="cpu", progress=False)
    monkeypatch.setenv("COLUMNS", "80")
    text = str(result)
    assert max(map(len, text.splitlines())) <= 80 and "0.1 -> 0.025" in text and "the first one" in text


def test_the_doctor_and_the_list_of_benchmarks_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.suite import MODULES, listed

    monkeypatch.setenv("COLUMNS", "80")
    why = "cannot be loaded: the process that tried ended with exit code 1: " + "a long reason " * 8
    found = {
        "torch-eager": BackendStatus(
            "torch-eager", True, {"torch": "2.14.1", "torchvision": "0.29.2", "numpy": "1.26.4"}
        ),
        "oneflow-eager": BackendStatus("oneflow-eager", False, {"oneflow": None}, why.strip(), "pip install oneflow"),
    }
    text = doctor_text(found)
    assert re.search("torch-eager +works", text) and re.search("oneflow-eager +does not work", text)
    assert max(map(len, text.splitlines())) <= 80 and "  pip install oneflow" in text
    assert max(map(len, listed().splitlines())) <= 80 and all(name in listed() for name in MODULES)


def test_a_terminal_gets_its_own_width_and_a_pipe_plain_text(tmp_path: Path) -> None:
    """FORCE_COLOR, which rich obeys, changes nothing."""
    code = "import layered_lr as ll\nprint(ll.plan())"
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    environment = {**kept, "PYTHONPATH": path, "FORCE_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=600).stdout
    assert "\x1b" not in piped and 100 < max(map(len, piped.splitlines())) <= PIPED_WIDTH

    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    subprocess.run(command, env=environment, stdout=theirs, check=True, timeout=600)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so where all is read
            break
        if not part:
            break
        shown += part
    os.close(ours)
    lines = shown.decode().splitlines()
    assert "\x1b" not in shown.decode() and 60 < max(map(len, lines)) <= 80
