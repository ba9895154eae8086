"""Text from outside, wherever it is printed: in a terminal, a log, HTML, SVG and CSV it is text and nothing else."""

import csv
import io
import json
import pickle
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.cli import main
from layered_lr.console import say
from layered_lr.outputs import write_whole
from layered_lr.plans.export import html_text
from layered_lr.plans.picture import picture
from layered_lr.printed import csv_cell, harmless, shown
from layered_lr.reports.page import page, paragraphs
from layered_lr.reports.tables import ReportTable, shortened, wrapped

# Clears the screen, sets the title, writes right to left, is half a character, rings, goes back, ends the line.
HOSTILE = "w\x1b[2J\x1b]0;title\x07\u202e\udcff\x00\r\x85\u2028\ufeff"


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_every_character_that_does_not_print_is_an_escape() -> None:
    every = "".join(map(chr, range(0x110000)))
    assert is_harmless(harmless(every)) and harmless("head ▁▂ 学习率 é") == "head ▁▂ 学习率 é"
    assert harmless("a\nb") == "a\nb" and harmless("a\nb", keep="") == r"a\nb"
    assert harmless(HOSTILE).encode() and harmless(harmless(HOSTILE)) == harmless(HOSTILE)


class Unfriendly:
    def __repr__(self) -> str:
        raise KeyError("no")


ANYTHING: list[Any] = [
    *(10**6000, [10**6000], {"a": 10**6000}, Unfriendly(), [Unfriendly()], HOSTILE, HOSTILE.encode("utf-8", "replace")),
    *("x" * 10**6, b"x" * 10**6, [[[[[[1]]]]]], np.ones((99, 99)), {1: np.ones(9999)}, list(range(10**5)), object()),
]


def test_a_value_of_any_kind_is_shown_in_one_short_line() -> None:
    for value in ANYTHING:
        assert is_harmless(shown(value)) and "\n" not in shown(value) and 0 < len(shown(value)) < 600


def test_errors_and_what_is_said_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ll.SpecError(HOSTILE), ll.CheckpointError(HOSTILE), ll.BackendUnavailable("x", HOSTILE, HOSTILE)):
        assert is_harmless(str(error)) and r"\x1b" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    say(HOSTILE)
    assert is_harmless(capsys.readouterr().err)


def test_tables_sentences_and_pages_are_harmless() -> None:
    table = ReportTable([HOSTILE, "rate"], [[HOSTILE, "1"], ["b\nc", HOSTILE]], frozenset({HOSTILE}))
    for text in (table.text(80), table.text(8), wrapped(HOSTILE, 20), wrapped(HOSTILE), shortened(HOSTILE, 99)):
        assert is_harmless(text)
    body = table.html() + paragraphs([HOSTILE])
    ElementTree.fromstring(f"<p>{body}</p>")
    assert is_harmless(page(HOSTILE, HOSTILE, body))


def hostile_plan() -> ll.Plan:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("w?*"), ll.Group("=1+1", name="=cmd"), ll.Group("<b>&", name="--><b>&$x$")])
    parameters = [(HOSTILE, (2,)), ("=1+1", (2,)), ("<b>&", (2,)), ("z", (2,), (HOSTILE + "z",)), ("y", (2,))]
    return ll.resolve(spec, parameters, 4, 2)


def test_a_plan_with_hostile_names_is_harmless_everywhere(tmp_path: Path) -> None:
    plan = hostile_plan()
    other = ll.resolve(ll.Spec(ll.SGD(0.2)), [(HOSTILE, (3,)), (HOSTILE + "new", (2,))], 4, 2)
    assert is_harmless(str(plan)) and is_harmless(str(plan.diff(other))) and r"\x1b" in str(plan.diff(other))
    assert is_harmless(json.dumps(plan.to_dict()))
    page_text = html_text(plan)
    assert is_harmless(page_text) and "<b>" not in page_text.replace("&lt;b&gt;", "")
    ElementTree.fromstring(picture(plan, ".svg"))
    header, *rows = csv.reader(io.StringIO(plan.to_csv()))
    assert header == ["step", "epoch", "w?*", "'=cmd", "'--><b>&$x$", "rest"] and len(rows) == 4
    write_whole(tmp_path / "plan.html", [page_text.encode()])


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_is_no_formula(name: str) -> None:
    assert csv_cell(name).startswith("'") and is_harmless(csv_cell(name))
    assert csv_cell("head, neck") == "head, neck"


@pytest.mark.parametrize(
    "write",
    [
        lambda text: ll.Group(text),
        lambda text: ll.Group(["a", text]),
        lambda text: ll.Group("re:" + text),
        lambda text: ll.Group("a", name=text),
        lambda text: ll.Spec(ll.SGD(0.1), no_weight_decay=text),
        lambda text: ll.Phase("1 epoch", frozen=text),
        lambda text: ll.InitialWeights("w.npz", reset=text),
    ],
)
@pytest.mark.parametrize("character", ["\x1b", "\n", "\x00", "\u202e", "\x9b", "\udcff"])
def test_patterns_and_names_of_a_spec_print(write: Any, character: str) -> None:
    with pytest.raises(ll.SpecError, match=r"print") as caught:
        write(f"a{character}b")
    assert is_harmless(str(caught.value))


HOSTILE_RECIPES = [
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n"{0}" = 1',
    '[optimizer]\ntype = "{0}"\nlr = 0.1',
    '[optimizer]\ntype = "SGD"\nlr = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[[groups]]\nmatch = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[[groups]]\nmatch = "features"\nname = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[schedule]\ntype = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[schedule]\ntype = "LambdaLR"\nlr_lambda = "{0}:f"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[[phases]]\nuntil = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[[phases]]\nfrozen = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\n"{0}" = 1',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\nmodel = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\nmodel = "{0}:net"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\ndata = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\nbackend = "{0}"',
    '[optimizer]\ntype = "SGD"\nlr = 0.1\n[run]\ninitial_weights = "{0}.npz"',
    '"{0}" = 1\n[optimizer]\ntype = "SGD"\nlr = 0.1',
]


@pytest.mark.parametrize("recipe", HOSTILE_RECIPES)
def test_the_command_prints_nothing_raw_of_a_recipe(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.replace("{0}", r"a\u001b[2J\u202e\u0007"), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["layered-lr", "plan", "--recipe", str(file), "--max-steps", "2"])
    with pytest.raises(SystemExit):
        main()
    said = capfd.readouterr()
    assert is_harmless(said.out) and is_harmless(said.err) and "Traceback" not in said.err


def test_the_command_prints_nothing_raw_of_its_own_arguments(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["pl\x1b[2Jan"],
        ["plan", "--x\x1b[2J"],
        ["plan", "--model", "a\x1b[2J"],
        ["plan", "--epochs", "\x1b"],
    ):
        monkeypatch.setattr("sys.argv", ["layered-lr", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and is_harmless(capfd.readouterr().err)
