"""A plan as CSV, JSON and HTML, by the methods and by the command line."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr import api
from layered_lr.plans.export import html_text, json_text

NAMES = [("stem.weight", (4, 3)), ("body.weight", (4, 4)), ("head.weight", (2, 4))]


def example(total: int | None = 70, per_epoch: int | None = 7) -> ll.Plan:
    groups = [ll.Group("stem", lr_scale=1 / 3, name='a, "b" <é>'), ll.Group("body", schedule=ll.CosineAnnealingLR(64))]
    return ll.resolve(ll.Spec(ll.SGD(0.1), groups, ll.ExponentialLR(0.97)), NAMES, total, per_epoch)


def test_every_rate_survives_csv_to_the_last_bit() -> None:
    plan = example(20_000)
    header, *rows = csv.reader(io.StringIO(plan.to_csv()))
    assert header == ["step", "epoch", 'a, "b" <é>', "body", "rest"]
    assert [int(row[0]) for row in rows] == list(range(20_000))
    assert [int(row[1]) for row in rows] == [step // 7 for step in range(20_000)]
    assert np.array_equal(np.array([row[2:] for row in rows], dtype=np.float64), plan.table())


def test_csv_without_epochs_and_without_steps() -> None:
    assert example(2, None).to_csv().splitlines()[0] == 'step,"a, ""b"" <é>",body,rest'
    assert example(0).to_csv().count("\n") == 1
    with pytest.raises(ll.SpecError, match="total_steps"):
        example(None).to_csv()


def test_a_column_of_the_csv_is_a_schedule_again(tmp_path: Path) -> None:
    plan = example()
    assert plan.to_csv(tmp_path / "p.csv") is None  # type: ignore[func-returns-value]
    table = ll.Table.from_csv(tmp_path / "p.csv", "body")
    again = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=table), NAMES, 70)
    assert np.array_equal(again.table()[:, 0], plan.table()[:, 1])


def test_csv_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES, 10).to_csv(tmp_path / "p.csv")
    before = (tmp_path / "p.csv").read_text()
    broken = ll.Spec(ll.SGD(0.1), schedule=ll.Function(lambda step: -1.0 if step == 9000 else 0.1))
    with pytest.raises(ll.SpecError, match="9000"):
        ll.resolve(broken, NAMES, 10_000).to_csv(tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == before and len(list(tmp_path.iterdir())) == 1
    for path in (tmp_path, tmp_path / "no" / "p.csv", 3):
        with pytest.raises(ll.SpecError, match="path="):
            example().to_csv(path)  # type: ignore[arg-type]


def test_csv_replaces_rates_of_the_same_groups_alone(tmp_path: Path) -> None:
    plan, file = example(), tmp_path / "p.csv"
    for text, words in (("mine", "that this library has not written"), ("step,loss\n0,1\n", "with other columns than")):
        file.write_text(text)
        with pytest.raises(ll.SpecError, match=words):
            plan.to_csv(file)
        assert file.read_text() == text
    file.write_text("")
    plan.to_csv(file)
    plan.scale_rates(0.5).to_csv(file)
    assert file.read_text() == plan.scale_rates(0.5).to_csv()


def test_html_is_one_file_that_needs_nothing_else() -> None:
    pytest.importorskip("matplotlib")
    text = html_text(example())
    assert "http" not in text and "//" not in text and not re.search(r"<(script|link|img|iframe)\b", text)
    assert not re.search(r"(?<!clip-path: )url\((?!#)", text) and set(re.findall(r'href="(.)', text)) <= {"#"}
    assert text.count("<svg") == 2 and text.count("<table") == 1, "a drawing for wide screens, one for narrow ones"
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers)), "both drawings are in one document"
    assert 'name="viewport"' in text and text.count("<h1>") == 1
    assert "a, &quot;b&quot; &lt;é&gt;" in text and "CosineAnnealingLR" in text and "<é>" not in text


def test_plan_as_json(call: Any) -> None:
    answer = call("plan", "--json", "--epochs", "5")
    assert answer.code == 0 and answer.err == ""
    plan, made = json.loads(answer.out), api.plan(epochs=5)
    assert ll.plan_from_dict(plan) == made
    assert [group["name"] for group in plan["groups"]] == ["backbone", "head"]
    assert [group["first_rate"] for group in plan["groups"]] == made.rates(0)
    assert [group["last_rate"] for group in plan["groups"]] == made.rates(109)
    assert plan["groups"][1]["schedule"]["type"] == "StepLR" and plan["groups"][1]["lr_scale"] == 1.0
    with_backend = json.loads(call("plan", "--json", "--backend", "oneflow-graph").out)
    assert "StepLR" in with_backend["groups"][0]["lowering"]


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("html", b"<!DOCTYPE html>")])
def test_the_command_writes_what_is_asked(call: Any, tmp_path: Path, suffix: str, begins: bytes) -> None:
    pytest.importorskip("matplotlib")
    plot, table = tmp_path / f"p.{suffix}", tmp_path / "p.csv"
    answer = call("plan", "--plot", str(plot), "--csv", str(table), "--scale", "log")
    assert answer.code == 0 and answer.err == "" and str(api.plan()) in answer.out and str(plot) in answer.out
    assert plot.read_bytes().startswith(begins) and table.read_text() == api.plan().to_csv()
    assert {path.name for path in tmp_path.iterdir()} == {plot.name, "p.csv"}
    json.loads(call("plan", "--json", "--plot", str(plot)).out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plot", "p.jpg"], "must end in .png or .svg or .html"),
        (["--plot", "plan"], "must end in .png"),
        (["--plot", ""], "--plot=''"),
        (["--plot", "no/such/p.png"], "a folder that exists"),
        (["--csv", "p.txt"], "must end in .csv"),
        (["--csv", "no/such/p.csv"], "a folder that exists"),
        (["--csv", "p.csv/"], "p.csv"),
        (["--scale", "cubic"], "cubic"),
    ],
    ids=str,
)
def test_wrong_outputs_are_refused_before_anything_is_computed(
    call: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.csv").mkdir()
    monkeypatch.setattr(api, "plan", None)
    answer = call("plan", *words)
    refused(answer, message)
    assert len(answer.err.splitlines()) == 1 and [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_json_has_no_infinity() -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), clip_grad_norm=float("inf")), [("weight", (1,))], 2)
    assert json.loads(json_text(plan))["spec"]["clip_grad_norm"] == "inf"
