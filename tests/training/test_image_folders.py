"""Runs on a folder of images: from the command, from a recipe, stopped and gone on, on both frameworks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import layered_lr as ll
from layered_lr.cli import cli
from tests.support.image_folders import make_folder, noise, save_image
from tests.support.isolation import value_of


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images") / "pets")


def tiny_net() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(64, 3))


SPEC = ll.Spec(ll.SGD(0.01, momentum=0.9))


def run(data: Any, **options: Any) -> ll.Result:
    given = {"model": tiny_net, "batch_size": 4, "epochs": 2, "seed": 3, "progress": False, "device": "cpu"}
    return ll.run(SPEC, data=data, **{**given, **options})


def weights_on(backend, folder):  # type: ignore[no-untyped-def]  # its text runs in a process of its own
    import torch

    import layered_lr as ll

    def net():  # type: ignore[no-untyped-def]
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=4), torch.nn.Flatten(), torch.nn.Linear(64, 3))

    data = ll.ImageFolder(folder, 16, memory_bytes=0, augment=True)
    spec = ll.Spec(ll.SGD(0.01, momentum=0.9))
    result = ll.run(spec, backend, net, data, epochs=2, batch_size=4, initialise="torch", progress=False, device="cpu")
    return {name: array.tolist() for name, array in {**result.weights, "accuracies": result.accuracies}.items()}


def test_a_run_that_is_stopped_goes_on_bitwise_and_finds_its_folder_again(pets: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    data = ll.ImageFolder(pets, 16, memory_bytes=0, augment=True, share=0.3)
    whole = run(data)
    run(data, max_steps=4, checkpoints=tmp_path / "run")
    recipe = ll.load_recipe(tmp_path / "run" / "recipe.toml", trust=True)
    assert recipe.run["data"] == data.to_dict()
    on = ll.resume(tmp_path / "run", epochs=2, max_steps=None, trust=True)
    assert on.losses.tobytes() == whole.losses.tobytes()
    for name, array in whole.weights.items():
        np.testing.assert_array_equal(on.weights[name], array)


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder = make_folder(tmp_path / "pets")
    run(folder, image_size=16, max_steps=2, checkpoints=tmp_path / "run")
    save_image(folder / "cat" / "0.png", noise(77, 20, 30, 3))
    with pytest.raises(ll.CheckpointError, match="the data are not those that the run was trained with"):
        ll.resume(tmp_path / "run", max_steps=3, trust=True)


def test_both_frameworks_get_the_same_pixels(pets: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("oneflow")
    torch, oneflow = (value_of(weights_on, name, str(pets)) for name in ("torch-eager", "oneflow-eager"))
    for name, array in torch.items():
        np.testing.assert_allclose(array, oneflow[name], rtol=0, atol=1e-5, err_msg=name)  # float32, 6 updates


def test_the_command_plans_a_folder(pets: Path) -> None:
    words = ["plan", "--data", f"folder:{pets}", "--image-size", "32", "--batch-size", "4"]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0 and "18 steps, 3 an epoch" in found.output  # 6 epochs of 12 images
    found = CliRunner().invoke(cli, ["plan", "--data", str(pets), "--batch-size", "4"])
    assert isinstance(found.exception, ll.DataError) and "--image-size 224" in str(found.exception)
