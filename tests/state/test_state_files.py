"""States of a training as files: nothing is lost, and nothing damaged, foreign or edited is ever taken."""

import dataclasses
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layered_lr.arrays import DividedArray, find_bfloat16
from layered_lr.errors import CheckpointError
from layered_lr.state import CheckpointFolder, TrainingState, gather_rest, read_state, state_files, write_state
from layered_lr.state.state_files import FORMAT, STATE, TRAINING, WEIGHTS


def example(step: int = 7, seed: int = 0) -> TrainingState:
    draw = np.random.default_rng(seed)
    weights = {
        "features.0.weight": draw.normal(size=(3, 2, 1, 1)).astype(np.float32), "größe/1": np.float32(2.5).reshape(()),
        "bn.num_batches_tracked": np.array(step), "empty": np.zeros((0, 2)), "turned": np.arange(6.0).reshape(2, 3).T,
    }  # fmt: skip
    slots = {
        "features.0.weight": {"exp_avg": draw.normal(size=(3, 2, 1, 1)), "step": np.array(float(step))},
        "größe/1": {},
    }
    return TrainingState(
        step=step,
        optimizer="Adam",
        weights=weights,
        slots=slots,
        reactions={"head": {"rate": 0.1, "best": np.inf, "bad": 0.0}},
        ema={name: array * 0.5 for name, array in weights.items()},
        random={"torch": np.arange(100, dtype=np.uint8)},
        history={"losses": draw.normal(size=step), "rates": draw.normal(size=(step, 2))},
        about={"spec": {"optimizer": {"type": "Adam", "lr": 0.1}}, "versions": {"torch": "2"}},
    )


def same(one: TrainingState, other: TrainingState) -> bool:
    first, second = dict(one.arrays()), dict(other.arrays())
    plain = ("step", "optimizer", "reactions", "about")
    for what in ("random", "history"):
        first |= getattr(one, what)
        second |= getattr(other, what)
    return (
        [getattr(one, name) for name in plain] == [getattr(other, name) for name in plain]
        and {name: dict.fromkeys(slots) for name, slots in one.slots.items()}
        == {name: dict.fromkeys(slots) for name, slots in other.slots.items()}
        and first.keys() == second.keys()
        and all(
            a.dtype == second[name].dtype and a.shape == second[name].shape and a.tobytes() == second[name].tobytes()
            for name, a in first.items()
        )
    )


def test_nothing_is_lost(tmp_path: Path) -> None:
    write_state(tmp_path / "one", example())
    assert same(read_state(tmp_path / "one"), example())
    assert not same(read_state(tmp_path / "one"), example(seed=1))
    assert sorted(file.name for file in tmp_path.rglob("*")) == sorted(["one", STATE, TRAINING, WEIGHTS])


def divide(state: TrainingState, calls: list[str]) -> TrainingState:
    """The same state, of which another process holds the second half of each array of a parameter."""

    def divided(name: str, array: Any) -> Any:
        def gather(part: Any) -> Any:
            calls.append(name)
            return np.concatenate([part, array.reshape(-1)[part.size :]]).reshape(array.shape)

        part = array.reshape(-1)[: array.size // 2].copy()
        return DividedArray(part, array.shape, "halves", gather, lambda is_so: is_so)

    name = "features.0.weight"
    slots = {slot: divided(slot, array) if array.ndim else array for slot, array in state.slots[name].items()}
    return dataclasses.replace(
        state,
        weights={**state.weights, name: divided("weight", state.weights[name])},
        ema={**state.ema, name: divided("average", state.ema[name])},
        slots={**state.slots, name: slots},
    )


def test_arrays_of_several_processes_are_gathered_one_by_one_into_the_same_state(tmp_path: Path) -> None:
    calls: list[str] = []
    state = divide(example(), calls)
    write_state(tmp_path / "one", state)
    assert same(read_state(tmp_path / "one"), example())
    assert calls == ["weight", "exp_avg", "average"]  # in each file wide numbers first
    gather_rest(state)
    assert len(calls) == 3  # there is no rest
    gather_rest(state)  # as a process does that writes nothing: the same, in the same order
    assert calls[3:] == calls[:3]
    with pytest.raises(TypeError, match=r"divided among processes: gather it first"):
        np.asarray(state.weights["features.0.weight"])


def test_what_a_failed_write_did_not_gather_is_gathered_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    state = divide(example(), calls)
    save, saved = state_files._save, []

    def fail(file: Path, arrays: Any) -> None:
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(file)
        save(file, arrays)

    monkeypatch.setattr(state_files, "_save", fail)
    with pytest.raises(CheckpointError, match="No space left"):
        write_state(tmp_path / "one", state)
    assert calls == ["weight"]
    gather_rest(state)
    assert calls == ["weight", "exp_avg", "average"]


def test_divided_arrays_are_refused_where_one_part_is_not_finite() -> None:
    state = divide(example(), [])
    state.check_finite()
    state.slots["features.0.weight"]["exp_avg"].part[0] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"exp_avg of 'features\.0\.weight' holds NaN"):
        state.check_finite()


def test_a_state_whose_arrays_stay_in_their_files_is_the_same(tmp_path: Path) -> None:
    wide = {"half": np.arange(3, dtype=find_bfloat16()), "pair": np.array([1 + 2j]), "yes": np.array([True, False])}
    state = dataclasses.replace(example(), history={**example().history, **wide})
    write_state(tmp_path / "one", state)
    found = read_state(tmp_path / "one", is_mapped=True)
    assert same(found, state)
    content = (tmp_path / "one" / WEIGHTS).read_bytes()
    found.weights["features.0.weight"][:] = 0
    assert (tmp_path / "one" / WEIGHTS).read_bytes() == content  # a copy has changed
    shutil.rmtree(tmp_path / "one")
    assert found.ema["turned"].tolist() == state.ema["turned"].tolist()


def test_the_weights_open_in_torch_without_this_library(tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import load_file as load_tensors

    write_state(tmp_path / "one", example())
    tensors = load_tensors(tmp_path / "one" / WEIGHTS)
    assert set(tensors) == set(example().weights)
    assert all(np.array_equal(tensor.numpy(), example().weights[name]) for name, tensor in tensors.items())


def test_a_state_written_anew_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    for seed in range(3):
        write_state(tmp_path / "one", example(seed=seed))
        assert same(read_state(tmp_path / "one"), example(seed=seed))
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_there_is_no_moment_without_a_state_where_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(tmp_path / "one", example(seed=0))
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        assert self != tmp_path / "one", "a kill after this would leave none"
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    write_state(tmp_path / "one", example(seed=1))
    assert same(read_state(tmp_path / "one"), example(seed=1))


def refuse(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def forged(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what ``state.json`` says, with digests that are right again."""
    table = json.loads((folder / STATE).read_text())
    del table["digest"]
    table["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (WEIGHTS, TRAINING)}
    change(table)
    table["digest"] = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
    (folder / STATE).write_text(json.dumps(table))


def truncate(folder: Path, name: str, draw: random.Random) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: draw.randrange(len(content))])


def flip(folder: Path, name: str, draw: random.Random) -> None:
    content = bytearray((folder / name).read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    (folder / name).write_bytes(content)


def remove(folder: Path, name: str, draw: random.Random) -> None:
    (folder / name).unlink()


def from_another(folder: Path, name: str, draw: random.Random) -> None:
    shutil.copy(folder.parent / "other" / name, folder / name)


def zipped(folder: Path, name: str, draw: random.Random) -> None:
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'touch pwned'\ntR.")


def pickled(folder: Path, name: str, draw: random.Random) -> None:
    (folder / name).write_bytes(b"cos\nsystem\n(S'touch " + str(folder.parent / "pwned").encode() + b"'\ntR.")


def extended(folder: Path, name: str, draw: random.Random) -> None:
    with (folder / name).open("ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 50)))


DAMAGES = (truncate, flip, remove, from_another, zipped, pickled, extended)


def test_200_damaged_states_are_found_200_times(tmp_path: Path) -> None:
    good = tmp_path / "good"
    write_state(good, example())
    write_state(tmp_path / "other", example(seed=1))
    draw = random.Random(0)
    for number in range(200):
        bad = tmp_path / "bad"
        shutil.copytree(good, bad)
        damage, name = DAMAGES[number % len(DAMAGES)], draw.choice([WEIGHTS, TRAINING, STATE])
        damage(bad, name, draw)
        if damage is from_another and name == STATE:  # its digests are of the other's arrays
            assert "differs from the file that was written" in refuse(bad)
        assert name in refuse(bad) or damage is from_another or "missing" in refuse(bad)
        shutil.rmtree(bad)
    assert not (tmp_path / "pwned").exists()
    assert same(read_state(good), example())


def test_a_forged_state_with_right_digests_is_refused_for_what_it_holds(tmp_path: Path) -> None:
    def poison(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
        def forge(folder: Path) -> None:
            arrays = dict(load_file(folder / file))
            change(arrays)
            save_file(arrays, folder / file)
            forged(folder, lambda table: None)

        return forge

    def setting(key: str, value: Any) -> Callable[[Path], None]:
        return lambda folder: forged(folder, lambda table: table.update({key: value}))

    nan = np.full((3, 2, 1, 1), np.nan, np.float32)
    cases: dict[str, Callable[[Path], None]] = {
        "holds NaN": poison(TRAINING, lambda arrays: arrays.update({"slot:exp_avg:features.0.weight": nan})),
        "weight 'empty' holds NaN": poison(WEIGHTS, lambda arrays: arrays.update({"empty": nan})),
        "its format is": setting("format", FORMAT + "0"),
        "names the files": setting("sha256", {}),
        "step cannot be 'seven'": setting("step", "seven"),
        "step cannot be 2.5": setting("step", 2.5),
        "step cannot be -1": setting("step", -1),
        "parameters cannot be None": setting("parameters", None),
        "reactions cannot be {'head': {'rate': 'x'}}": setting("reactions", {"head": {"rate": "x"}}),
        "metric cannot be 'best'": setting("metric", "best"),
        "optimizer cannot be 3": setting("optimizer", 3),
        "about cannot be []": setting("about", []),
    }
    for number, (message, forge) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        write_state(folder, example())
        forge(folder)
        assert message in refuse(folder)


def test_no_such_folder_or_a_file_in_its_place(tmp_path: Path) -> None:
    assert "there is no saved state in it" in refuse(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "file" in refuse(tmp_path / "file")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state(tmp_path / "one", example())
    with monkeypatch.context() as patch:
        patch.setattr(state_files, "_sync", lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(CheckpointError, match="one: the state cannot be written: No space left"):
            write_state(tmp_path / "one", example(seed=1))
    assert same(read_state(tmp_path / "one"), example())
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    with pytest.raises(CheckpointError, match="cannot be written: No such file"):
        write_state(tmp_path / "no" / "folder", example())


WRITE_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from layered_lr.state import write_state, TrainingState
from layered_lr.errors import CheckpointError
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
state = TrainingState(1, "SGD", {"w": np.ones(100_000)}, {})
try:
    write_state(Path(sys.argv[1]), state)
except CheckpointError as error:
    print(error)
"""


def test_a_file_too_large_for_the_system_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_A_LIMIT, str(tmp_path / "one")], capture_output=True, text=True, check=True
    )
    assert "the state cannot be written" in done.stdout and "too large" in done.stdout.lower()
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_keep_the_newest_and_the_best(tmp_path: Path) -> None:
    kept = CheckpointFolder(tmp_path / "checkpoints", keep=2)
    for step, metric in enumerate([0.1, 0.9, 0.3, None, 0.9, 0.2]):
        kept.write(example(step), metric)
    assert [path.name for path in kept.paths()] == ["step-00000001", "step-00000004", "step-00000005"]
    assert kept.find_best() == tmp_path / "checkpoints" / "step-00000001"
    assert kept.read_newest().state.step == 5
    only = CheckpointFolder(tmp_path / "newest only", keep=1, keep_best=False)
    for step in (9, 10, 11):
        only.write(example(step), 1 / step)
    assert [path.name for path in only.paths()] == ["step-00000011"]


def test_the_newest_good_checkpoint_is_found_and_the_damaged_ones_are_named(tmp_path: Path) -> None:
    kept = CheckpointFolder(tmp_path, keep=4)
    for step in (1, 2, 3):
        kept.write(example(step))
    (tmp_path / "step-00000003" / WEIGHTS).write_bytes(b"")
    (tmp_path / "step-00000002" / STATE).unlink()
    (tmp_path / "step-x").mkdir()
    found = kept.read_newest()
    assert found.state.step == 1 and found.path.name == "step-00000001"
    assert len(found.damaged) == 2 and "step-00000003" in found.damaged[0] and "step-00000002" in found.damaged[1]
    (tmp_path / "step-00000001" / TRAINING).unlink()
    with pytest.raises(CheckpointError, match="none of its 3 checkpoints can be read"):
        kept.read_newest()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        CheckpointFolder(tmp_path / "nowhere").read_newest()


def test_what_a_killed_run_left_is_cleaned_away(tmp_path: Path) -> None:
    kept = CheckpointFolder(tmp_path)
    kept.write(example(1))
    shutil.copytree(tmp_path / "step-00000001", tmp_path / ".layered_lr-abc")
    kept.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        CheckpointFolder(tmp_path / "checkpoints").write(example())


def test_a_state_is_compared_with_a_model_by_name_shape_and_dtype() -> None:
    state = example()
    state.check_fits(state.weights)
    other = dict(state.weights)
    other["new"] = other.pop("empty")
    other["turned"] = np.zeros((3, 3))
    other["größe/1"] = np.zeros(())
    with pytest.raises(CheckpointError) as caught:
        state.check_fits(other)
    for part in ("'new' is not in it", "'empty' is not in the model", "shape (3, 2)", "float64 of shape ()"):
        assert part in str(caught.value)
    many = dataclasses.replace(state, weights={str(n): np.zeros(1) for n in range(50)})
    with pytest.raises(CheckpointError, match="and 49 more"):
        many.check_fits(state.weights)
