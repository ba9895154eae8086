"""The commands for what was trained: predict, evaluate, export, card."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layered_lr as ll
from tests.support.trained import data, make_net, make_plain_net, pixels, train

MODEL = "tests.support.trained:make_net"


@pytest.fixture(scope="module")
def place(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's folder, its result, its data and images."""
    folder = tmp_path_factory.mktemp("place")
    train(checkpoints=folder / "run", save=folder / "result.npz")
    np.savez(folder / "data.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), data(), strict=True)))
    (folder / "images").mkdir()
    for index, image in enumerate(pixels(3)):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    return folder


def test_predict_and_evaluate_say_what_python_says(call: Any, place: Path, tmp_path: Path) -> None:
    result = ll.Result.load(place / "result.npz")
    expected = result.predict(place / "images", top_k=2, model=make_net)
    for run in ("run", "result.npz"):
        answer = call("predict", str(place / run), str(place / "images"), "--top-k", "2", "--trust", "--json")
        assert answer.code == 0 and json.loads(answer.out) == json.loads(expected.to_json())
    words = ["predict", str(place / "run"), str(place / "images/0.png"), str(place / "images/2.png"), "--model", MODEL]
    answer = call(*words, "--csv", str(tmp_path / "p.csv"))
    assert answer.code == 0 and answer.out.endswith(f"written: {tmp_path / 'p.csv'}\n")
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [int(row["class"]) for row in rows] == expected.classes[[0, 2], 0].tolist()
    assert [Path(row["image"]).name for row in rows] == ["0.png", "2.png"]

    evaluation = result.evaluate(data(), model=make_net)
    words = ["evaluate", str(place / "run"), "--data", str(place / "data.npz"), "--model", MODEL]
    answer = call(*words, "--json", "--csv", str(tmp_path / "c.csv"))
    found = json.loads(answer.out)
    assert found["confusion"] == evaluation.confusion.tolist() and found["accuracy"] == evaluation.accuracy
    assert (tmp_path / "c.csv").read_text().splitlines()[0] == "true class,0,1,2"
    assert "precision" in call(*words).out


def test_export_and_card(call: Any, place: Path, tmp_path: Path, torch: Any) -> None:
    run = str(place / "run")
    answer = call("export", run, str(tmp_path / "w.pth"))
    weights = ll.Result.load(place / "result.npz").weights
    tensors = torch.load(tmp_path / "w.pth", weights_only=True)
    assert answer.code == 0 and {name: tensor.numpy().tolist() for name, tensor in tensors.items()} == {
        name: array.tolist() for name, array in weights.items()
    }
    card = call("card", run).out
    assert "## Plan" in card and ll.Result.load(run).model_input.digest in card  # type: ignore[union-attr]
    assert call("card", run, str(tmp_path / "CARD.md")).code == 0 and (tmp_path / "CARD.md").read_text() == card


def test_every_command_for_what_was_trained_takes_model_and_trust(call: Any, place: Path, tmp_path: Path) -> None:
    run = str(place / "run")
    plain = call("card", run).out
    assert f"# {MODEL}, trained".replace("_", "\\_") in plain and 'load("result.npz", trust=True)' in plain
    assert "imports it with `trust=True` alone" in plain
    other = call("card", run, "--trust", "--model", "mine:other_net").out
    assert "# mine:other\\_net, trained" in other
    assert call("report", run, "--trust", "-o", str(tmp_path / "r.html")).code == 0


@pytest.fixture(scope="module")
def numbers(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs on values, on labels and on masks, their data and images."""
    folder = tmp_path_factory.mktemp("numbers")
    values = np.random.default_rng(0).random((31, 3), np.float32)
    masks = np.random.default_rng(1).integers(0, 3, (31, 6, 6))
    cross_entropy = torch.nn.functional.cross_entropy
    for name, targets, model, loss in (
        ("values", values, make_plain_net, torch.nn.functional.mse_loss),
        ("labels", np.round(values), make_plain_net, torch.nn.BCEWithLogitsLoss()),
        ("masks", masks, lambda: torch.nn.Conv2d(3, 3, 3, padding=1), cross_entropy),
    ):
        whole = (pixels(24), targets[:24], pixels(7, 1), targets[24:])
        train(model, data=whole, loss=loss, epochs=1, save=folder / f"{name}.npz")
        np.savez(
            folder / f"{name}-data.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), whole, strict=True))
        )
    (folder / "images").mkdir()
    for index, image in enumerate(pixels(3)):
        Image.fromarray(image).save(folder / "images" / f"{index}.png")
    return folder


PLAIN = "tests.support.trained:make_plain_net"


def test_values_and_labels_are_a_table(call: Any, numbers: Path, tmp_path: Path) -> None:
    for name in ("values", "labels"):
        run, images = str(numbers / f"{name}.npz"), str(numbers / "images")
        expected = ll.Result.load(run).predict(images, model=make_plain_net)
        answer = call("predict", run, images, "--model", PLAIN, "--json", "--csv", str(tmp_path / f"{name}.csv"))
        assert answer.code == 0 and json.loads(answer.out) == json.loads(expected.to_json())
        rows = list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        assert [[float(row[f"value {each}"]) for each in range(3)] for row in rows] == expected.values.tolist()
    assert [float(row["probability 2"]) for row in rows] == expected.probabilities[:, 2].tolist()
    answer = call("predict", run, images, "--model", PLAIN, "--folder", str(tmp_path / "files"))
    assert answer.out.endswith(f"written: {tmp_path / 'files'} (3 files)\n")
    assert np.load(tmp_path / "files/2.npy").tolist() == expected.values[2].tolist()


def test_masks_are_files(call: Any, numbers: Path, place: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "pixel_net.py").write_text(
        "import torch\ndef make(): return torch.nn.Conv2d(3, 3, 3, padding=1)\n"
        "def share(outputs, targets): return (outputs.argmax(1) == targets).mean()\n"
    )
    monkeypatch.chdir(tmp_path)
    words = [str(numbers / "masks.npz"), "--model", "pixel_net:make"]
    answer = call("predict", *words, str(numbers / "images"), "--folder", "masks")
    from pixel_net import make  # type: ignore[import-not-found]

    result = ll.Result.load(numbers / "masks.npz")
    expected = result.predict(numbers / "images", model=make).masks
    assert answer.code == 0 and "6x6" in answer.out
    for index in range(3):
        assert np.array(Image.open(f"masks/{index}.png")).tolist() == expected[index].tolist()
    found = json.loads(
        call("evaluate", *words, "--data", str(numbers / "masks-data.npz"), "--metric", "pixel_net:share", "--json",
             "--trust").out)  # fmt: skip
    evaluation = result.evaluate(
        str(numbers / "masks-data.npz"), model=make, loss="torch.nn.functional:cross_entropy",
        metrics={"share": lambda outputs, targets: (outputs.argmax(1) == targets).mean()})  # fmt: skip
    assert found["metrics"] == dict(evaluation.metrics) and found["loss"] == evaluation.loss
    for wrong, said in (
        (["predict", *words, str(numbers / "images"), "--csv", "m.csv"], "--folder writes a .png for each"),
        (["predict", *words, str(numbers / "images"), "--folder", "masks"], "the folder is not empty"),
        (["predict", *words, str(numbers / "images"), "--folder", "no/such"], "must be a folder in one that exists"),
        (["predict", str(place / "run"), str(place / "images"), "--folder", "x"], "class numbers, which --csv writes"),
        (["evaluate", *words, "--csv", "c.csv"], "--csv: the targets are masks, which have no confusion matrix"),
    ):
        answer = call(*wrong)
        assert answer.code == 2 and said in answer.err


def test_an_evaluation_of_values_takes_a_loss(call: Any, numbers: Path) -> None:
    words = ["evaluate", str(numbers / "labels.npz"), "--data", str(numbers / "labels-data.npz"), "--model", PLAIN]
    answer = call(*words)
    assert answer.code == 0 and "no file holds the run's own" in answer.err and "loss not known" in answer.out
    given = call(*words, "--loss", "torch.nn.functional:binary_cross_entropy_with_logits", "--json")
    logged = ll.Result.load(numbers / "labels.npz").logged["test loss"]
    assert json.loads(given.out)["loss"] == pytest.approx(logged[-1, 1], rel=1e-6)
    values = ["evaluate", str(numbers / "values.npz"), "--data", str(numbers / "values-data.npz"), "--model", PLAIN]
    assert "is code that a file names" in call(*values).err
    assert "loss 0." in call(*values, "--trust").out


def test_a_card_names_the_function_that_built_the_model(torch: Any) -> None:
    def build_mine() -> Any:
        return make_net()

    result = train(model=build_mine)
    card = result.card()
    assert "# build\\_mine, trained" in card and "top_k=3, model=build_mine" in card
    assert "| model | build\\_mine |" in card and "It needs build\\_mine, which no file holds." in card
    given = result.card(model=lambda: make_net())
    assert "# a model of the user's own, trained" in given and "model=make_model" in given
    assert 'model="mine.nets:other"' in result.card(model="mine.nets:other")
    for wrong in (3, "", " "):
        with pytest.raises(ll.SpecError, match="card: model="):
            result.card(model=wrong)  # type: ignore[arg-type]


def test_what_is_wrong_is_refused_in_one_line(call: Any, refused: Any, place: Path, tmp_path: Path) -> None:
    run, images = str(place / "run"), str(place / "images")
    (tmp_path / "mine.csv").write_text("a,b\n")
    (tmp_path / "mine.md").write_text("mine\n")
    (tmp_path / "mine.pth").write_text("mine\n")
    (tmp_path / "bad.png").write_text("bad")
    small = tmp_path / "small.npz"
    np.savez(small, x_train=pixels(3)[:, :3], y_train=[0, 1, 2], x_test=pixels(3)[:, :3], y_test=[0, 1, 2])
    for words, message in (
        (["predict", run, images], "--trust"),
        (["predict", str(tmp_path / "gone"), images], "no such file"),
        (["predict", str(tmp_path), images], "holds no run"),
        (["predict", str(small), images], "not a readable result"),
        (["predict", run, str(tmp_path / "bad.png"), "--model", MODEL], "bad.png"),
        (["predict", run, str(tmp_path), "--model", MODEL], "bad.png"),
        (["predict", run, images, "--csv", str(tmp_path / "mine.csv")], "mine.csv"),
        (["predict", run, images, "--model", "tests.support.trained:gone"], "gone"),
        (["predict", run, images, "--top-k", "0", "--model", MODEL], "top_k"),
        (["predict", run, images, "--checkpoint", "first"], "'last', 'best'"),
        (["predict", run, images, "--checkpoint", "99"], "no checkpoint after 99"),
        (["predict", run, images, "--weights", "average", "--trust"], "no moving average"),
        (["predict", run, images, "--backend", "tensorflow", "--trust"], "tensorflow"),
        (["predict", run], "Missing argument"),
        (["evaluate", run, "--data", str(small), "--model", MODEL], "(3, 3, 6)"),
        (["evaluate", run, "--model", MODEL], "--data"),
        (["evaluate", run, "--data", "digit", "--model", MODEL], "digits"),
        (["export", run, str(tmp_path / "model")], "must end in"),
        (["export", run, str(tmp_path / "m.onx")], ".onnx"),
        (["export", run, str(tmp_path / "mine.pth")], "--overwrite"),
        (["export", run, str(tmp_path / "w.pth"), "--normalise"], "weights alone"),
        (["export", run, str(tmp_path / "no/such/w.pth")], "folder that exists"),
        (["card", run, str(tmp_path / "mine.md")], "not written"),
    ):
        refused(call(*words), message)
    assert (tmp_path / "mine.md").read_text() == "mine\n" and (tmp_path / "mine.pth").read_text() == "mine\n"
