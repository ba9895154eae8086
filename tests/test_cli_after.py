"""The commands for what was trained: predict, evaluate, export, card."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layered_lr as ll
from tests.support.trained import data, make_net, pixels, train

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
