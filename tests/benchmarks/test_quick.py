"""Every benchmark runs, on tiny sizes, and its report is whole. What it measures is never looked at."""

import math
from typing import Any

import pytest

from benchmarks import suite
from benchmarks.frame.command import Asked, measured
from benchmarks.frame.report import Report
from benchmarks.frame.tables import markdown, text

# What each compares; the peers, most of which are not installed here, have tests of their own.
OPPONENTS = {
    "backends": {"torch-eager", "torch-compile", "oneflow-eager", "oneflow-graph"},
    "hand_loop": {
        "ll.run, torch-eager",
        "torch by hand",
        "torch by hand, glibc as it comes",
        "ll.run, oneflow-eager",
        "oneflow-eager by hand",
        "ll.run, oneflow-graph",
        "oneflow-graph by hand",
    },
    "groups": {"SGD, 1 group", "SGD, a group per parameter", "AdamW, torch, 158 groups, fused"},
    "folder_pipeline": {"ImageFolder", "ImageFolder, kept", "torchvision's DataLoader, 2 workers"},
    "data_pipeline": {"Batches to torch", "Batches to OneFlow", "torchvision's DataLoader, 2 workers"},
    "overhead": {"ll.run", "bare loop", "ll.run minus bare loop"},
    "startup": {"layered-lr run, torch-eager", "script by hand, torch-eager"},
    "growth": set(),
    "plan_speed": {"plan, shared", "torch's scheduler, distinct"},
    "phases_cost": {"torch-eager, frozen", "torch-eager, everything"},
    "checkpoint_cost": {"50 updates", "50 updates and 2 checkpoints", "a checkpoint"},
    "rate_search": {"an update of a run", "an update of a search"},
    "mixed_precision": {"ll.run, bf16", "by hand, fp16"},
    "scaling": {"MobileNetV2, 2 processes, 158 groups", "counted by its sockets", "4 processes"},
    "faults": {"torch-eager"},
    "convolutions": {"OneFlow's own convolutions", "layered_lr", "torch"},
}

STARTS_MANY = set(OPPONENTS) - {"groups", "plan_speed", "checkpoint_cost", "rate_search"}
"""Those that start processes of their own for what they compare."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name in STARTS_MANY)) for name in OPPONENTS]
)
def test_it_runs_and_its_report_is_whole(name: str, torch: Any, oneflow: Any) -> None:
    report = measured(suite.load(name), Asked(quick=True))
    check_whole(report)
    assert OPPONENTS[name] <= {series.name for series in report.series}
    assert report.missing == {}
    if name == "backends":  # the tiny model begins alike everywhere, so its weights stay together
        for dtype, bound in (("float64", 1e-12), ("float32", 1e-3)):  # of 0.2: rounding, a batch norm over 64 images
            apart = {of.name: of.median for of in report.series if of.quantity.endswith(f"calm steps, {dtype}")}
            assert apart.keys() == OPPONENTS["backends"] and max(apart.values()) < bound


def check_whole(report: Report) -> None:
    assert Report.from_dict(report.to_dict()) == report and report.about["quick"] is True
    assert report.series or report.curves
    for of in (*report.series, *report.ratios):
        assert of.rounds and all(map(math.isfinite, of.rounds))
    for curve in report.curves:
        assert len(curve.x) == len(curve.y) >= 2 and all(y > 0 for y in curve.y)
    assert report.question in text(report) and f"## {report.name}" in markdown(report)


def test_without_a_gpu_it_says_skipped(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = suite.load("gpu").run(1, True)
    assert report.skipped and report.notes == ("skipped: no GPU",)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_on_a_gpu_all_fits_together(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU in its place, where the run is the same one twice."""
    from benchmarks import gpu

    monkeypatch.setattr(gpu, "_DEVICE", "cpu")
    monkeypatch.setattr(gpu, "has_gpu", lambda: True)
    report = measured(gpu.BENCHMARK, Asked(quick=True))
    check_whole(report)
    found = {of.name: of.rounds for of in report.series}
    for dtype in ("float32", "bfloat16"):
        assert {f"ll.run, torch-eager, {dtype}", f"torch by hand, {dtype}"} <= set(found)
    differences = [of.rounds for of in report.series if "float64" in of.quantity]
    assert differences == [(0.0,)]
    assert set(report.missing) <= {"Lightning, float32", "Lightning, bfloat16"}  # in an environment of its own
