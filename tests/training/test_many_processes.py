"""One run in several processes is the run of one; what cannot be is refused in a line."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.processes import Alone
from layered_lr.training import many_processes
from layered_lr.training.many_processes import check_single_process, find_launch, was_restarted
from layered_lr.training.options import RunOptions
from tests.support import many_runs, many_targets
from tests.support.made_once import make_once

ALIKE = (
    "plain",
    "reacting",
    "watched",
    "accumulated",
    "rolled_back",
    "used_at_times",
    "halted",
    "stopped",
    "kept",
    "uneven_last_batch",
    "lone_last_image",
    "lone_gone_on",
)
REFUSED = {
    "unfit_group": r"Unsupported: the process group that the script has made \(gloo\) cannot send tensors on 'cpu': No",
    "diverging": "TrainingDiverged: the loss is nan at step 1",
    "asking_in_vain": r"SpecError: (process 1 of 2: )?ReduceLROnPlateau\(metric='tests.support.many_runs:raises_in_the",
    "not_divided": r"SpecError: run\(batch_size=13\): .* Use 12 or 14",
    "more_than_images": r"SpecError: run\(batch_size=1\): .* Use 2",
    "gone_on_apart": "SpecError: .*process 1 of 2 has another checkpoint than process 0: step 4 and not 6",
    "unlike_norms": "SpecError: .*drop_last=False: the last batch .* 3 of 12 .* one image, and .* '1' ",
}
FAILURES = "tests.support.many_failures"
FAILED = tuple(
    f"{FAILURES}:{case}" for case in ("raised", "raised_without_a_folder", "diverged_in_one", "stopped_at_a_checkpoint")
)
LISTS = ("other_backends", "other_recipe", "silently_other")
TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(scope="module")
def alone(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> dict[str, Any]:
        return {"folder": folder, **{case: many_runs.call(case, str(folder)) for case in (*ALIKE, "no_classes")}}

    return make_once(tmp_path_factory, "many-alone", make)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def two(torch: Any, alone: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> dict[str, Any]:
        return {
            "folder": folder,
            "ranks": many_runs.run_in(
                2, *ALIKE, "no_classes", "measured_in_vain", *REFUSED, *LISTS, *FAILED, folder=str(folder)
            ),
        }

    return make_once(tmp_path_factory, "many-two", make)  # type: ignore[no-any-return]


def assert_alike(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-9) -> None:
    assert isinstance(one, dict) and isinstance(other, dict), (one, other)
    assert one["events"] == other["events"]
    for name in one.keys() - {"events"}:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_train_as_one(alone: dict[str, Any], two: dict[str, Any], case: str) -> None:
    for found in two["ranks"]:
        assert_alike(alone[case], found[case], 1e-5 if case == "rolled_back" else 1e-9)


@pytest.mark.parametrize("kind", many_targets.TARGETS)
def test_targets_that_are_no_classes_train_as_in_one(alone: dict[str, Any], two: dict[str, Any], kind: str) -> None:
    one = alone["no_classes"][kind]
    assert len(one["losses"]) == 8 and len(one["logged spread"]) == 2 and not len(one["accuracies"])
    for found in two["ranks"]:
        assert_alike(one, found["no_classes"][kind])


@pytest.mark.parametrize(("case", "words"), REFUSED.items())
def test_what_cannot_be_is_refused(two: dict[str, Any], case: str, words: str) -> None:
    for found in two["ranks"]:
        assert re.match(words, found[case]), found[case]


def test_torch_says_nothing_of_unused_parameters(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        assert "find_unused_parameters" not in found["stderr"]


def test_a_metric_that_fails_in_one_process_loses_no_epoch(two: dict[str, Any]) -> None:
    """The others waited for it, and the run went on from the epoch before."""
    for found in two["ranks"]:
        made = found["measured_in_vain"]
        assert isinstance(made, dict), made
        assert "metrics: 'seen' of outputs" in made["said"] and "raised KeyError: 'share'" in made["said"]
        assert_alike(made["whole"], made["gone_on"], 0.0)


ENDS = {"begin": 0, "batch": 2, "update": 3, "evaluation": 4, "epoch": 4, "checkpoint": 0, "end": 8}
"""After how many updates a run ends whose callback raises in the event of this kind."""


@pytest.mark.parametrize(("kind", "step"), ENDS.items())
def test_a_callback_that_raises_in_one_process_ends_all_with_a_checkpoint(
    two: dict[str, Any], kind: str, step: int
) -> None:
    """The others lost the process, and the run went on from the epoch before."""
    failed = 0 if kind == "epoch" else 1
    for rank, found in enumerate(two["ranks"]):
        said, newest, gone_on = found[f"{FAILURES}:raised"][kind]
        whose = "" if rank == failed else f"process {failed} of 2: "
        words = f"{whose}callback Fails{kind.title()} raised OSError in on_{kind}: no disk."
        assert said.startswith(f"CallbackError: {words} The run ends after {step} updates. To go on: ")
        assert said.endswith(str(rank != failed)) and newest == step
        assert_alike(found[f"{FAILURES}:raised"]["whole"], gone_on, 0.0)


def test_a_callback_that_raises_ends_runs_without_a_folder_too(two: dict[str, Any]) -> None:
    first, second = (found[f"{FAILURES}:raised_without_a_folder"] for found in two["ranks"])
    for index, words in enumerate((
        "callback FailsUpdate raised OSError in on_update: no disk. The run ends after 3 updates. Give checkpoints",
        "callback FailsBatch raised OSError in on_batch: no disk. The run ends after 2 updates. Give checkpoints",
        "callback Changes: on_batch has changed the batch in the first process alone, because its class has writes",
        "callback Misfits: on_batch has put float32 of shape (6, 1, 32, 32) in event.images",
    )):  # fmt: skip
        assert words in first[index] and words in second[index], (first[index], second[index])
        assert {first[index].split()[-1], second[index].split()[-1]} == {"True", "False"}


def test_a_stop_that_the_others_have_not_heard_of_comes_one_update_later(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        made = found[f"{FAILURES}:stopped_at_a_checkpoint"]
        assert isinstance(made, dict), made
        assert len(made["losses"]) == 5 and made["events"] == ["stopped"]


def test_a_loss_that_one_process_reads_first_ends_all_of_them(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        assert "TrainingDiverged: " in found[f"{FAILURES}:diverged_in_one"]
        assert "the loss is nan at step 1, at rates" in found[f"{FAILURES}:diverged_in_one"]


def test_the_process_that_the_others_wait_for_is_named(two: dict[str, Any]) -> None:
    words = "waiting for process 1 of 2, which has not gone on for 0.8 seconds: slow, stopped, or cut off."
    assert two["ranks"][0]["stderr"].count(words) >= 2  # once where it slept, once where it was stopped


def test_other_backends_say_that_they_cannot(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        compiled, *of_oneflow = found["other_backends"]
        assert "cannot train in several processes, and this is one of 2" in compiled
        assert len(of_oneflow) == 2
        assert all("which a process group of torch connects, and OneFlow cannot" in text for text in of_oneflow)


def test_processes_that_differ_are_named_by_one_of_them(two: dict[str, Any]) -> None:
    words = ("another plan", "another option than process 0: seed 1", "another data digest", "there is no such file")
    first, second = (found["other_recipe"] for found in two["ranks"])
    for index, word in enumerate(words):
        assert word in first[index] and word in second[index]
        assert {first[index].split()[-1], second[index].split()[-1]} == {"True", "False"}  # one of them says it
        assert "process 1 of 2" in first[index] + second[index]


DIFFERENCES = {
    "loss": "another code than process 0: loss",
    "class names": "another input than process 0: class_names",
    "weights": "another file of weights than process 0",
    "callbacks": "another list of callbacks than process 0: number 1 'Watches ",
    "dtype": "another plan than process 0: parameters 'float64' and not 'float32'",
    "dropout": "another model than process 0: 6 'Dropout(p=0.3",
    "schedule": "another schedule than process 0",
    "late schedule": "another schedule than process 0: of all updates",
    "plateau": "another code than process 0: metric of group rest",
    "version": "another framework than process 0: 'torch 2",
    "package": "another version than process 0: torchvision ",
}


def test_processes_that_differ_in_what_no_option_names_are_refused(two: dict[str, Any]) -> None:
    first, second = (found["silently_other"] for found in two["ranks"])
    for case, words in DIFFERENCES.items():
        assert words in first[case] and words in second[case], (first[case], second[case])
        assert "process 1 of 2" in first[case]
        assert {first[case].split()[-1], second[case].split()[-1]} == {"True", "False"}


def test_a_function_without_an_import_path_is_refused_by_one_of_them(two: dict[str, Any]) -> None:
    first, second = (found["silently_other"]["lambda"] for found in two["ranks"])
    for text in (first, second):
        assert (
            "several processes compare their specs as tables, in which a function is its import path: LambdaLR" in text
        )
    assert {first.split()[-1], second.split()[-1]} == {"True", "False"}


def test_what_may_differ_does(two: dict[str, Any]) -> None:
    for found in two["ranks"]:  # a log in the first process, and weights that torch takes from the first one
        assert found["silently_other"]["log"] == found["silently_other"]["unseeded"] == "no error"


def test_files_are_written_once(alone: dict[str, Any], two: dict[str, Any]) -> None:
    one, other = alone["folder"], two["folder"]
    assert sorted(path.name for path in (one / "run").iterdir()) == sorted(
        path.name for path in (other / "run").iterdir()
    )
    rows = [(folder / "run" / "metrics.csv").read_text().splitlines() for folder in (one, other)]
    assert len(rows[0]) == len(rows[1]) == 7
    assert (other / "result.npz").stat().st_size > 0


def test_a_run_goes_on_with_another_number_of_processes(
    alone: dict[str, Any], two: dict[str, Any], tmp_path: Path
) -> None:
    for name, source in (("one", alone), ("two", two)):
        shutil.copytree(source["folder"] / "run", tmp_path / name / "run")
    shutil.copytree(alone["folder"] / "run", tmp_path / "undisturbed" / "run")
    undisturbed = many_runs.call("gone_on", str(tmp_path / "undisturbed"))
    assert_alike(undisturbed, many_runs.call("gone_on", str(tmp_path / "two")))  # two, then one
    for found in many_runs.run_in(4, "gone_on", folder=str(tmp_path / "one")):  # one, then four
        assert_alike(undisturbed, found["gone_on"])


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "1"}, "RANK='1' is set in the environment, and WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE='2' is set in the environment, and RANK is not"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "from 0 to WORLD_SIZE - 1"),
        ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE='two'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR and MASTER_PORT not"),
        ({**TORCHRUN, "MASTER_PORT": "x"}, "MASTER_PORT='x': must be a port"),
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "as mpirun sets it"),
        ({"PMI_SIZE": "4"}, "as mpiexec sets it"),
    ],
)
def test_a_launcher_that_says_too_little_is_refused(environment: dict[str, str], words: str) -> None:
    with pytest.raises(ll.Unsupported) as caught:
        find_launch(environment, {})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_process_that_is_alone_is_found_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    group = SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_world_size=lambda: 1)
    group.get_rank = lambda: 0
    without = SimpleNamespace(is_available=lambda: False)  # as in a torch that was built so
    assert find_launch({}, {"torch.distributed": group}) is None
    assert find_launch({}, {"torch.distributed": without}) is None
    for rank in ("0", "-1"):  # OneFlow leaves -1 there
        assert find_launch({"WORLD_SIZE": "1", "RANK": rank}, {}) is None
    found = find_launch(TORCHRUN, {})
    assert found is not None and (found.rank, found.count, found.local_rank, found.is_joined) == (1, 2, 1, False)


def test_what_one_process_does_alone_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    for call in (check_single_process, lambda: ll.compare(steps=1), lambda: ll.run(dry_run=True, max_steps=1)):
        with pytest.raises(ll.Unsupported, match="this process is one of 2"):
            call()


@pytest.mark.parametrize(("metric", "trust"), [("loss", ""), ("math:sqrt", " --trust")])
def test_the_word_after_a_lost_process_has_all_that_the_command_needs(
    monkeypatch: pytest.MonkeyPatch, metric: str, trust: str
) -> None:
    advice: list[str] = []

    class Watched(Alone):
        def watching(self, advice_given: str) -> contextlib.AbstractContextManager[None]:
            advice.append(advice_given)
            return contextlib.nullcontext()

    backend = SimpleNamespace(join=lambda launch: Watched(), can_shard=True, name="torch-eager")
    monkeypatch.setattr(many_processes, "load_backend", lambda *_: backend)
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau(metric=metric))
    for given in (spec, spec.to_dict()):
        with many_processes.joined(RunOptions(checkpoints="my run"), given):
            pass
    assert advice == [f"To go on from the newest checkpoint: layered-lr resume 'my run'{trust}"] * 2


def test_a_restart_goes_on_only_where_a_run_has_begun(tmp_path: Path) -> None:
    options = RunOptions(checkpoints=str(tmp_path))
    assert not was_restarted(options, {"TORCHELASTIC_RESTART_COUNT": "1"})
    (tmp_path / "recipe.toml").write_text("")
    assert was_restarted(options, {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert not was_restarted(options, {"TORCHELASTIC_RESTART_COUNT": "0"}) and not was_restarted(options, {})


@pytest.mark.parametrize("rank", ["0", "1"])
def test_an_error_of_one_process_alone_is_said_by_it(rank: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one says it at once; another one where nobody has ended it in the meantime."""
    monkeypatch.setattr(many_processes, "ALONE_SECONDS", 0.0)
    monkeypatch.setattr(many_processes, "SPEAKING_SECONDS", 0.0)
    for name, value in {**TORCHRUN, "RANK": rank}.items():
        monkeypatch.setenv(name, value)
    answer = call("run", "--recipe", "missing.toml")
    whose = "process 1 of 2: " if rank == "1" else ""
    assert answer.code == 2 and answer.err.startswith(f"layered-lr: {whose}missing.toml"), answer.err
    monkeypatch.delenv("MASTER_PORT")  # which all processes lack
    answer = call("run", "--max-steps", "1")
    assert answer.code == 2 and ("MASTER_PORT not" in answer.err) == (rank == "0")
