"""A run in which each process holds a part of the model (``shard=True``) is the run of one process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.made_once import make_once
from tests.support.old_torch import skip_without_fully_shard

ALIKE = ("sharded", "sharded_odd", "sharded_guarded", "sharded_muon", "sharded_switched")
REFUSED = {
    "uncalled": "Unsupported: shard=True: the model uses the weights of a module without calling the module",
    "adafactor": "Unsupported: shard=True: group '8.*' trains with Adafactor",
    "float16": "Unsupported: run(shard=True, precision='float16')",
    "log": "Unsupported: run(shard=True): the log TensorBoard reads the weights",
}


@pytest.fixture(scope="module")
def runs(torch: Any) -> Any:
    from tests.support import sharded_runs

    return sharded_runs


@pytest.fixture(scope="module")
def alone(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(folder: Path) -> dict[str, Any]:
        return {case: runs.many_runs.call(case, str(folder)) for case in (*ALIKE, "sharded_optimizers")}

    return make_once(tmp_path_factory, "sharded-alone", make)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def two(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    skip_without_fully_shard()

    def make(folder: Path) -> dict[str, Any]:
        cases = ("sharded_half", "sharded_resumed", "sharded_optimizers", "sharded_refused", "sharded_bytes")
        return {"folder": folder, "ranks": runs.run_in(2, *ALIKE, *cases, folder=str(folder))}

    return make_once(tmp_path_factory, "sharded-two", make)  # type: ignore[no-any-return]


def assert_alike(one: Any, other: Any, tolerance: float = 1e-9) -> None:
    assert isinstance(one, dict) and isinstance(other, dict), (one, other)
    assert one["events"] == other["events"]
    for name in one.keys() - {"events"}:
        np.testing.assert_allclose(one[name], other[name], rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("case", ALIKE)
def test_parts_train_as_the_whole(alone: dict[str, Any], two: dict[str, Any], case: str) -> None:
    for found in two["ranks"]:
        assert_alike(alone[case], found[case])


def test_optimizers_see_whole_parameters(runs: Any, alone: dict[str, Any], two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        assert isinstance(found["sharded_optimizers"], dict), found["sharded_optimizers"]
        for name in runs.OPTIMIZERS:
            assert_alike(alone["sharded_optimizers"][name], found["sharded_optimizers"][name])


def test_a_run_that_was_stopped_goes_on_bit_for_bit(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        assert isinstance(found["sharded_resumed"], dict), found["sharded_resumed"]
        for name, numbers in found["sharded"].items():
            if name != "events":
                assert np.array_equal(numbers, found["sharded_resumed"][name]), name


def test_its_checkpoint_is_that_of_one_process(
    runs: Any, alone: dict[str, Any], two: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(two["folder"] / "half", tmp_path / "half")
    assert_alike(alone["sharded"], {**runs.many_runs.call("sharded_on", str(tmp_path)), "events": []}, 1e-9)


def test_a_process_holds_half(two: dict[str, Any]) -> None:
    for found in two["ranks"]:
        assert isinstance(found["sharded_bytes"], dict), found["sharded_bytes"]
        for own, whole in found["sharded_bytes"].values():
            assert whole > 3072 * 64 and own == whole / 2


@pytest.mark.parametrize(("case", "words"), REFUSED.items())
def test_what_cannot_be_divided_is_refused(two: dict[str, Any], case: str, words: str) -> None:
    for found in two["ranks"]:
        assert isinstance(found["sharded_refused"], dict), found["sharded_refused"]
        assert found["sharded_refused"][case].startswith(words)


def test_one_process_says_that_it_holds_everything(runs: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs._run(model=runs.Odd, spec=ll.Spec(ll.SGD(0.1)), max_steps=1)
    assert "shard=True: there is one process, which holds everything." in capsys.readouterr().err


@pytest.mark.exhaustive
def test_it_goes_on_with_another_number_of_processes(
    runs: Any, alone: dict[str, Any], two: dict[str, Any], tmp_path: Path
) -> None:
    for count, case in ((4, "sharded_on"), (2, "undivided_on")):
        shutil.copytree(two["folder"] / "half", tmp_path / case / "half")
        for found in runs.run_in(count, case, folder=str(tmp_path / case)):
            assert_alike(alone["sharded"], {**found[case], "events": []})


@pytest.mark.exhaustive
def test_the_other_optimizers_train_as_the_whole(runs: Any, tmp_path: Path) -> None:
    skip_without_fully_shard()
    whole = runs.many_runs.call("sharded_optimizers_more", str(tmp_path))
    for found in runs.run_in(2, "sharded_optimizers_more", folder=str(tmp_path)):
        for name in runs.MORE_OPTIMIZERS:
            assert_alike(whole[name], found["sharded_optimizers_more"][name])


def test_blocks_are_children_with_many_numbers(runs: Any, torch: Any) -> None:
    from layered_lr_torch.sharded_model import find_blocks, find_undivided

    net, odd = runs.net(), runs.Odd()
    assert find_blocks(net) == [net[0], net[1], net[3][0], net[3][1], net[6], net[7]]
    assert odd.first not in find_blocks(odd) and odd.body in find_blocks(odd)  # tied weights stay together
    assert {id(each) for each in find_undivided(odd)} == {id(odd.scale), id(odd.second.bias)}


def test_a_model_that_is_to_be_divided_is_built_in_main_memory(runs: Any, torch: Any) -> None:
    """A GPU may have no room for the whole of it. Here torch's device without memory stands for the GPU."""
    from layered_lr_torch.eager import TorchEager

    backend = TorchEager("cpu")
    backend.device = torch.device("meta")
    assert next(backend.build(runs.net, 4, 0.0, 0).parameters()).device.type == "meta"
    backend.prepare_to_shard()
    model = backend.build(runs.net, 4, 0.0, 0, "float64")
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}
    assert backend.answer(model, np.zeros((2, 3, 32, 32), np.float32), 4).shape == (2, 4)
