"""Every file that is read is damaged at random: the answer is the right one, or an error of this library."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layered_lr as ll
from layered_lr.data import load_dataset
from layered_lr.models.weight_files import read_weights
from layered_lr.state.state_files import STATE, TRAINING, WEIGHTS
from tests.support import hostile
from tests.support.models import arrays
from tests.support.resuming import options

SPEC = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("head", lr_scale=0.5)])


def _read_state(folder: Path) -> Any:
    import torch

    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(0)
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9)), model)
    before = {name: array.numpy().copy() for name, array in model.state_dict().items()}
    source = folder.parent if folder.name in (WEIGHTS, TRAINING, STATE) else folder
    try:
        ll.load_state(source, model, optimizer, scheduler)
    except ll.LayeredLRError:
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array.numpy(), before[name], err_msg="it has changed the model")
        raise
    return {name: array.numpy() for name, array in model.state_dict().items()}


def _read_result(file: Path) -> Any:
    result = ll.Result.load(file)
    str(result)  # whoever reads it prints it
    return result.weights | result.rates | {"losses": result.losses}


READERS: dict[str, Callable[[Path], Any]] = {
    "r.npz": _read_result,
    "w.npz": read_weights,
    "w.safetensors": read_weights,
    "w.pth": read_weights,
    "o.pt": _read_state,
    "r.toml": ll.load_recipe,
    "t.csv": lambda file: ll.Table(file).values,
    f"state/{WEIGHTS}": _read_state,
    f"state/{TRAINING}": _read_state,
    f"state/{STATE}": _read_state,
}
DIGESTED = [name for name in READERS if name.startswith("state/") or name.endswith(".npz")]


def _data(file: Path) -> Any:
    data = load_dataset(file)
    return {"x": data.x_train, "y": data.y_train}


READERS["d.npz"] = _data


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind."""
    torch = pytest.importorskip("torch")
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("files") / "good"
    folder.mkdir()
    (folder.parent / "victim.txt").write_text("mine")
    result = ll.run(SPEC, **options("torch-eager", epochs=1, save=folder / "r.npz"))
    np.savez(folder / "w.npz", **result.weights)
    save_file(result.weights, folder / "w.safetensors")
    torch.save({name: torch.from_numpy(array) for name, array in result.weights.items()}, folder / "w.pth")
    np.savez(folder / "d.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))
    (folder / "r.toml").write_text(SPEC.to_toml() + "[run]\nepochs = 2\n")
    (folder / "t.csv").write_text("0.5\n0.25\n")
    model = torch.nn.Linear(3, 2)
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9)), model)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    ll.save_state(folder / "state", model, optimizer, scheduler)
    torch.save(optimizer.state_dict() | {"step": 1}, folder / "o.pt")
    return folder


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(sorted(READERS)), seed=st.integers(0, 2**32))
def test_whatever_is_damaged_the_answer_is_right_or_an_error_of_ours(good: Path, name: str, seed: int) -> None:
    draw, bad = random.Random(seed), good.parent / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(good, bad)
    draw.choice(hostile.OF_FILES)(bad / name, draw)
    try:
        found = READERS[name](bad / name)
    except ll.LayeredLRError:
        found = None
    assert (good.parent / "victim.txt").read_text() == "mine"
    if found is not None and name in DIGESTED:  # the others have no digest: what they say may be something else
        right = READERS[name](good / name)
        assert set(found) == set(right)
        for key, array in right.items():
            np.testing.assert_array_equal(found[key], array, err_msg=key)


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("damage", [hostile.fifo, hostile.device, hostile.folder, hostile.remove, hostile.scramble])
def test_each_file_in_each_of_these_states_is_refused(good: Path, name: str, damage: hostile.Damage) -> None:
    bad = good.parent / "bad"
    shutil.rmtree(bad, ignore_errors=True)
    shutil.copytree(good, bad)
    damage(bad / name, random.Random(0))
    with pytest.raises(ll.LayeredLRError):
        READERS[name](bad / name)


def _rewritten(good: Path, **changes: Any) -> Path:
    with np.load(good / "r.npz") as archive:
        held = dict(archive)
    file = good.parent / "changed.npz"
    np.savez(file, **(held | changes))
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"losses": np.zeros((3, 1))},
        {"losses": np.array("text")},
        {"rates": np.zeros(3)},
        {"accuracies": np.array(["a"])},
        {"planned_rates/head": np.zeros((3, 2))},
        {"logged/a": np.zeros(3)},
        {"about": np.array("[" * 100_000)},
        {"about": np.array("{}")},
        {"about": np.array(3.5)},
    ],
    ids=lambda changes: f"{next(iter(changes))} {next(iter(changes.values())).shape}",
)
def test_a_result_of_other_arrays_is_refused(good: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ll.CheckpointError, match=r"changed\.npz"):
        ll.Result.load(_rewritten(good, **changes))


def test_a_member_that_is_no_array_is_refused(good: Path) -> None:
    import zipfile

    file = good.parent / "member.npz"
    shutil.copy(good / "r.npz", file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("weights/evil", b"text")
    with pytest.raises(ll.CheckpointError, match="'weights/evil' in it is no array"):
        ll.Result.load(file)
    with pytest.raises(ll.DataError, match="is no array"):
        read_weights(file)


@pytest.mark.parametrize("counter", [np.nan, np.inf, -1.0, 1e300])
def test_a_foreign_counter_that_is_none_is_refused(torch: Any, counter: float) -> None:
    model = torch.nn.Linear(3, 2)
    foreign = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    foreign.step()
    table = foreign.state_dict()
    for kept in table["state"].values():
        kept["step"] = torch.tensor(counter, dtype=torch.float64)
    optimizer, scheduler = ll.compile(ll.Spec(ll.Adam(0.1)), model)
    with pytest.raises(ll.CheckpointError, match="must be a count of updates"):
        ll.load_state(table, model, optimizer, scheduler)


def test_more_updates_than_can_be_counted_are_refused() -> None:
    for said in ({"epochs": 10**19}, {"max_steps": 10**19}):
        with pytest.raises(ll.SpecError, match=r"epochs|max_steps"):
            ll.plan(SPEC, **said)
