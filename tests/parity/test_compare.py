"""``ll.compare`` and ``layered-lr compare`` as a user has them: processes, verdicts, reports and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.parity import processes
from tests.support import parity_models as tiny
from tests.support.models import arrays
from tests.support.oneflow_crashes import try_again_after_crash

BOTH = {"torch": tiny.in_torch, "oneflow": tiny.in_oneflow}
SPEC = ll.Spec(
    ll.AdamW(0.01, weight_decay=0.1),
    [ll.Group("3", lr_scale=3, name="head")],
    ll.CosineAnnealingLR(T_max=8),
    no_weight_decay="1d",
    clip_grad_norm=1.0,
)
NAMES = ("torch-eager", "oneflow-eager", "oneflow-graph")
pytestmark = pytest.mark.usefixtures("frameworks")


def compared(model: Any = BOTH, backends: Any = NAMES, spec: ll.Spec = SPEC, **options: Any) -> ll.Comparison:
    asked: dict[str, Any] = {"steps": 4, "samples": 4, "batch_size": 8, "progress": False, "device": "cpu", **options}
    return try_again_after_crash(lambda: ll.compare(spec, backends, model, arrays(), **asked), crash_in)


def crash_in(found: ll.Comparison) -> str:
    """OneFlow's own crash, by SIGSEGV: the models here that end their process do it by SIGABRT."""
    own = [outcome for name, outcome in found.outcomes.items() if name.startswith("oneflow")]
    return ", ".join(str(outcome) for outcome in own if outcome.exit_code == -signal.SIGSEGV)


@pytest.fixture(scope="module")
def found() -> ll.Comparison:
    return compared(ema_decay=0.9, accumulate_steps=2)


def test_honest_backends_are_the_same(found: ll.Comparison) -> None:
    assert found.same
    assert found.pair("torch-eager", "oneflow-graph").verdict.kind == "same within rounding"
    assert found.pair("oneflow-graph", "torch-eager") is found.pair("torch-eager", "oneflow-graph")
    with pytest.raises(KeyError):
        found.pair("torch-eager", "torch-compile")


def test_the_rates_are_probed_off_the_weights(found: ll.Comparison) -> None:
    for seen in found.observed.values():
        # At update 0 the weights stand at 0, where float32 shows a rate to its last digits.
        assert seen.probed_rates[0] == pytest.approx([0.03, 0.01], rel=1e-6)
        assert seen.probed_rates == pytest.approx(seen.rates, rel=2e-6)


def test_everything_is_in_the_json(found: ll.Comparison) -> None:
    table = json.loads(found.to_json())
    assert table["same"] is True
    assert table["groups"] == ["head", "rest"]
    assert set(table["backends"]) == set(NAMES)
    assert len(table["backends"]["oneflow-graph"]["losses"]) == table["steps"] == 4
    assert len(table["pairs"]) == 3
    assert "moving average" in table["sections"]


class References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_report_is_one_file_with_tables_before_pictures(found: ll.Comparison, tmp_path: Path) -> None:
    found.to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = References()
    page.feed(text)
    assert all(reference.startswith("#") for reference in page.found), "it refers to something outside it"
    assert {"link", "script", "img"}.isdisjoint(page.tags)
    assert page.tags.index("table") < page.tags.index("svg")
    assert "width=device-width" in text
    assert "@media print" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "many", [pytest.param(False, marks=pytest.mark.exhaustive), True], ids=["a graph each", "one graph"]
)
def test_phases_are_the_same_on_every_backend(many: bool) -> None:
    """Freezing, a switch of the optimizer, schedules of their own: within the envelope of the certificate."""
    phases = [
        ll.Phase(2, trained="head", optimizer=ll.AdamW(0.01)),
        ll.Phase(4, frozen="3.bias", clip_grad_norm=0.5),
        *([ll.Phase(5, frozen="head"), ll.Phase(6, weight_decay=0.1)] if many else []),
        ll.Phase(counts_from="phase", schedule=ll.LinearLR(total_iters=2)),
    ]
    spec = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("3", lr_scale=3, name="head")], phases=phases)
    found = compared(spec=spec, steps=8)
    assert found.same, str(found)
    assert found.pair("oneflow-eager", "oneflow-graph").verdict.kind == "same bitwise"


def test_a_backend_that_dies_is_told_of_and_another_forward_pass_behind_it_is_found() -> None:
    model = {
        "torch-eager": tiny.in_torch,
        "oneflow-graph": tiny.that_kills_its_process,
        "oneflow-eager": tiny.with_another_activation,
    }
    found = compared(model, tuple(model))
    died = found.outcomes["oneflow-graph"]
    assert (died.status, died.exit_code) == ("died", -signal.SIGABRT)
    assert "the last thing it says" in died.words and "SIGABRT" in str(found)
    verdict = found.pair("torch-eager", "oneflow-eager").verdict
    assert (verdict.kind, verdict.cause) == ("different", "forward")
    assert verdict.first is not None
    assert verdict.first.step == 0
    assert not found.same and "different" in str(found)


def test_a_backend_that_refuses_is_told_of() -> None:
    model = {"oneflow-eager": tiny.in_oneflow, "oneflow-graph": tiny.of_another_shape}
    found = compared(model, tuple(model), steps=1, samples=2)
    assert found.outcomes["oneflow-graph"].status == "refused"
    assert "'1.bias' is missing here" in found.outcomes["oneflow-graph"].words
    assert found.outcomes["oneflow-eager"].status == "ran" and not found.same


def test_a_reference_that_dies_is_an_error_with_its_last_words() -> None:
    model = {"oneflow": tiny.that_kills_its_process, "torch": tiny.in_torch}
    with pytest.raises(ll.LayeredLRError, match="the last thing it says"):
        compared(model, ("oneflow-eager", "torch-eager"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({"backends": ["torch-eager"]}, "two or more", id="one"),
        pytest.param({"backends": ["torch-eager", "torch-eager"]}, "each may stand once", id="twice"),
        pytest.param({"backends": ["torch-eager", "oneflow"]}, "oneflow", id="unknown"),
        pytest.param({"backends": 3}, "must be a list of names", id="number"),
        pytest.param({"steps": 0}, "steps=0", id="no-steps"),
        pytest.param({"samples": 1}, "samples=1", id="one-sample"),
        pytest.param({"model": {"torch": tiny.in_torch}}, "'oneflow-eager'", id="model"),
        pytest.param({"model": lambda: None}, "no lambda", id="lambda"),
    ],
)
def test_wrong_input_is_a_spec_error_before_anything_runs(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ll.SpecError, match=said):
        compared(**options)


@pytest.mark.slow
def test_a_recipe_on_the_command_line(call: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    models = "torch=tests.support.parity_models:in_torch,oneflow=tests.support.parity_models:{}"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"""
[optimizer]
type = "SGD"
lr = 0.1
[run]
data = "{tmp_path / "data.npz"}"
batch_size = 8
max_steps = 100
""")
    save(tmp_path / "data.npz")
    options = ["--recipe", str(recipe), "--steps", "2", "--samples", "2", "--backends", "torch-eager,oneflow-eager"]
    done = call("compare", *options, "--model", models.format("in_oneflow"), "--report", str(report))
    assert done.code == 0, done.err
    assert "same within rounding" in done.out or "same bitwise" in done.out
    assert report.exists()
    done = call("compare", *options, "--model", models.format("with_another_activation"), "--json")
    assert done.code == 1, done.err
    assert json.loads(done.out)["pairs"][0]["cause"] == "forward"


def save(path: Path) -> None:
    import numpy as np

    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--backends", "torch-eager"], "two or more", id="one"),
        pytest.param(["--backends", "torch-eager,nonsense"], "nonsense", id="unknown"),
        pytest.param(["--steps", "0"], "steps=0", id="steps"),
        pytest.param(["--recipe", "nowhere.toml"], "nowhere.toml", id="recipe"),
        pytest.param(["--report", "report.pdf"], ".html", id="report"),
        pytest.param(["--lr", "-1"], "lr", id="lr"),
        pytest.param(["--nonsense"], "nonsense", id="option"),
    ],
)
def test_wrong_input_on_the_command_line_is_exit_code_2(
    call: Any, refused: Any, arguments: list[str], said: str
) -> None:
    refused(call("compare", *arguments), said)


def test_a_report_is_not_written_over_a_page_of_somebody_else(call: Any, refused: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.html").write_text("<!DOCTYPE html>")
    refused(call("compare", "--report", str(tmp_path / "mine.html")), "that this library has not written")


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layered_lr", "compare", "--steps", "5000", "--no-progress"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, cwd=tmp_path)
    workers = wait_for_workers(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(600) == 130
    assert not any(Path(f"/proc/{worker}/cmdline").exists() and alive(worker) for worker in workers)
    assert b"Traceback" not in process.communicate()[1]


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_while_a_worker_starts_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, error: type[BaseException]
) -> None:
    started = []

    def start_and_signal(*args: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True))
        os.kill(os.getpid(), number)
        return started[-1]

    real = subprocess.Popen
    monkeypatch.setattr(processes.subprocess, "Popen", start_and_signal)
    with pytest.raises(error), processes._process(tmp_path / "request", tmp_path / "log", 0):
        raise AssertionError("the worker began")
    assert started[0].poll() is not None


def wait_for_workers(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    for _ in range(600):
        if found := [int(child) for child in children.read_text().split()]:
            return found
        time.sleep(0.1)
    raise AssertionError("no worker was started")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
