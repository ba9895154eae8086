"""One run in several processes of OneFlow's launcher is the run of one; what cannot be is refused in a line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.processes import Launch
from layered_lr.training.many_processes import check_launcher
from tests.support import many_oneflow_runs
from tests.support.made_once import make_once

EAGER, GRAPH = "oneflow-eager", "oneflow-graph"
KEPT = f"kept:{EAGER}"
OF_EAGER = ("plain", "accumulated", "own_dropout", "stopped", "last_batch", "rolled_back")
OF_GRAPH = ("accumulated", "kept", "constants", "looked_up")
ALIKE = (*(f"{case}:{EAGER}" for case in OF_EAGER), KEPT, *(f"{case}:{GRAPH}" for case in OF_GRAPH))
KINDS = ("values", "labels", "masks")
NO_CLASSES = {backend: f"no_classes:{backend}:{':'.join(KINDS)}" for backend in (EAGER, GRAPH)}
LOSSES = {  # of which each case has several
    f"{case}:{backend}": kinds
    for backend in (EAGER, GRAPH)
    for case, kinds in (
        ("shares", ("smoothed", "mixed", "both")),
        ("own_losses", ("sum", "rows", "module", "smooth", "mixed")),
    )
}
BATCH_NORMS = [f"{case}:{backend}" for case in ("batch_norm", "own_batch_norm") for backend in (EAGER, GRAPH)]
LOOKS_OUTSIDE = f"looked_up:{GRAPH}:20"
REFUSED = {
    "not_divided": r"SpecError: run\(batch_size=13\): .* Use 12 or 14",
    "unlike_norms": "SpecError: .*the last batch of an epoch has 3 of 12 images, of which a process has one image, and",
    "other_seed": "SpecError: .*process 1 of 2 has another option than process 0: seed 1",
    "shared_batch_norm": "Unsupported: sync_batch_norm=True: OneFlow's batch normalisations",
}


@pytest.fixture(scope="module")
def alone(torch: Any, oneflow: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cases = (*ALIKE, *NO_CLASSES.values(), *LOSSES)

    def make(folder: Path) -> dict[str, Any]:
        return {"folder": folder, **{case: many_oneflow_runs.call(case, str(folder)) for case in cases}}

    return make_once(tmp_path_factory, "oneflow-alone", make)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def two(alone: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> dict[str, Any]:
        shutil.copytree(alone["folder"] / f"run_{EAGER}", folder / "of_one")
        cases = [
            *ALIKE,
            *NO_CLASSES.values(),
            *LOSSES,
            *(f"{case}:{EAGER}" for case in REFUSED),
            *BATCH_NORMS,
            LOOKS_OUTSIDE,
            f"gone_on:{EAGER}:of_one",
        ]
        return {"folder": folder, "ranks": many_oneflow_runs.run_in(2, folder, *cases)}

    return make_once(tmp_path_factory, "oneflow-two", make)  # type: ignore[no-any-return]


def assert_alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-9) -> None:
    assert isinstance(one, dict) and isinstance(other, dict), (one, other)
    assert one["events"] == other["events"]
    for name in one.keys() - {"events"}:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_train_as_one(alone: dict[str, Any], two: dict[str, Any], case: str) -> None:
    for found in two["ranks"]:
        assert_alike(alone[case], found[case], 1e-5 if "rolled_back" in case else 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", NO_CLASSES)
def test_targets_that_are_no_classes_train_as_in_one(
    alone: dict[str, Any], two: dict[str, Any], backend: str, kind: str
) -> None:
    one = alone[NO_CLASSES[backend]][kind]
    assert len(one["losses"]) == (8 if backend == EAGER else 6) and not len(one["accuracies"])
    for found in two["ranks"]:
        assert isinstance(found[NO_CLASSES[backend]], dict), found[NO_CLASSES[backend]]
        assert_alike(one, found[NO_CLASSES[backend]][kind])


@pytest.mark.parametrize("case", LOSSES)
def test_every_loss_is_the_mean_over_the_images_of_all_processes(
    alone: dict[str, Any], two: dict[str, Any], case: str
) -> None:
    for found in two["ranks"]:
        assert isinstance(found[case], dict), found[case]
        for kind in LOSSES[case]:
            assert_alike(alone[case][kind], found[case][kind])


@pytest.mark.parametrize(("case", "words"), REFUSED.items())
def test_what_cannot_be_is_refused_by_one_of_them(two: dict[str, Any], case: str, words: str) -> None:
    texts = [found[f"{case}:{EAGER}"] for found in two["ranks"]]
    assert all(re.match(words, text) or re.match(f"[A-Za-z]+: process 0 of 2: {words[11:]}", text) for text in texts)
    assert sorted(text.split()[-1] for text in texts) == ["False", "True"]  # whether the other one says it


def test_a_place_out_of_range_is_found_in_a_graph(two: dict[str, Any]) -> None:
    for rank in two["ranks"]:
        assert re.match(r"DataError: model: looks up places \d+ to \d+ of 40; must be 0 to 39", rank[LOOKS_OUTSIDE])


def test_a_run_that_goes_back_does(alone: dict[str, Any]) -> None:
    assert "rolled back" in alone[f"rolled_back:{EAGER}"]["events"]


def test_batch_norms_are_alike_in_both_processes_and_on_both_backends(two: dict[str, Any]) -> None:
    first, second = two["ranks"]
    for eager, graph in (BATCH_NORMS[:2], BATCH_NORMS[2:]):
        for case in (eager, graph):
            assert_alike(first[case], second[case], 0.0)
        assert_alike(first[eager], first[graph])


def test_files_are_written_once_and_a_run_goes_on_with_another_number(
    alone: dict[str, Any], two: dict[str, Any], tmp_path: Path
) -> None:
    assert len((two["folder"] / f"run_{EAGER}" / "metrics.csv").read_text().splitlines()) == 7
    for name, source in (("one", alone), ("two", two)):
        shutil.copytree(source["folder"] / f"run_{EAGER}", tmp_path / name)
    undisturbed = many_oneflow_runs.call(f"gone_on:{EAGER}:one", str(tmp_path))
    assert_alike(undisturbed, many_oneflow_runs.call(f"gone_on:{EAGER}:two", str(tmp_path)))  # two, then one
    for found in two["ranks"]:  # one, then two
        assert_alike(undisturbed, found[f"gone_on:{EAGER}:of_one"])


@pytest.mark.exhaustive
def test_a_process_that_dies_ends_the_others_with_a_message(oneflow: Any, tmp_path: Path) -> None:
    ended = many_oneflow_runs.launch(
        2, "-m", "tests.support.many_oneflow_runs", str(tmp_path), f"dies:{EAGER}", seconds=90
    )
    assert ended.returncode != 0
    words = f"process 0 of 2 has ended, or another .* layered-lr resume {re.escape(str(tmp_path / 'died'))}"
    assert re.search(words, ended.stderr), ended.stderr
    assert len(many_oneflow_runs.call(f"gone_on:{EAGER}:died", str(tmp_path))["losses"]) == 12


@pytest.mark.exhaustive
def test_an_error_in_one_process_ends_the_others_with_a_message(oneflow: Any, tmp_path: Path) -> None:
    words = ("-m", "tests.support.many_oneflow_runs", str(tmp_path), f"fails:{EAGER}")
    ended = many_oneflow_runs.launch(2, *words, seconds=90)
    assert ended.returncode != 0
    assert "process 0 of 2 has ended, or another one that it trains with" in ended.stderr
    assert "process 1 of 2 has ended" not in ended.stderr  # it has said its error


def test_another_launcher_than_oneflows_is_refused() -> None:
    local = {"LOCAL_RANK": "1"}
    launch = Launch(1, 2, 1, False)
    check_launcher(EAGER, launch, local)
    check_launcher("torch-eager", launch, {})
    for joined, environment, words in (
        (True, local, "which a process group of torch connects"),
        (False, {**local, "TORCHELASTIC_RUN_ID": "none"}, "which torchrun connects"),
        (False, {}, "LOCAL_RANK is no whole number"),
        (False, {"LOCAL_RANK": "first"}, "LOCAL_RANK is no whole number"),
    ):
        with pytest.raises(ll.Unsupported) as caught:
            check_launcher(EAGER, Launch(1, 2, 1, joined), environment)
        assert words in str(caught.value) and "\n" not in str(caught.value)
