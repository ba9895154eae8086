"""Predictions, evaluations, exports of runs whose targets are values, labels or masks: what torch itself answers."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.number_targets import CASES, IMAGES, LABELS, MASKS, VALUES, F, error, halves, torch, train

TARGETS = {"values": VALUES, "one value": VALUES[:, 0], "labels": LABELS, "masks": MASKS}
KINDS = {"values": "values", "one value": "values", "labels": "values", "masks": "masks"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def results(place: Path) -> dict[str, ll.Result]:
    return {case: train(case, epochs=1, save=place / f"{case}.npz") for case in CASES}


def answered(case: str, result: ll.Result, images: Any = IMAGES) -> Any:
    """By torch alone."""
    model = CASES[case][0]()
    model.load_state_dict({name: torch.tensor(array) for name, array in result.weights.items()})
    with torch.no_grad():
        return model.eval()(torch.from_numpy(images))


def loss_of(case: str, result: ll.Result, part: slice) -> float:
    targets, loss = TARGETS[case][part], CASES[case][2]
    wanted = torch.from_numpy(targets.astype(np.int64 if case == "masks" else np.float32))
    return float(loss(answered(case, result)[part], wanted))


@pytest.mark.parametrize("case", CASES)
def test_predictions_are_the_answers_of_torch(case: str, results: dict[str, ll.Result], place: Path) -> None:
    result, expected = results[case], answered(case, results[case]).numpy()
    found = result.predict(IMAGES, batch_size=7)
    assert found.targets == KINDS[case] and found.values.shape == expected.shape
    np.testing.assert_allclose(found.values, expected, rtol=1e-5, atol=1e-6)  # batches of another size
    if case == "masks":
        np.testing.assert_array_equal(found.masks, expected.argmax(1))
    loaded = ll.Result.load(place / f"{case}.npz").predict(IMAGES, batch_size=7, model=CASES[case][0])
    assert loaded.values.tobytes() == found.values.tobytes() and loaded.to_json() == found.to_json()
    assert str(loaded) == str(found) and len(str(found).splitlines()) == 42, "two lines of headers, one for each image"


def test_labels_have_probabilities_where_the_loss_takes_logits(results: dict[str, ll.Result]) -> None:
    found = results["labels"].predict(IMAGES[:5])
    expected = torch.sigmoid(answered("labels", results["labels"], IMAGES[:5]).double()).numpy()
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    row = json.loads(found.to_json())["predictions"][3]
    assert row["probabilities"] == dict(zip("01", found.probabilities[3].tolist(), strict=True))
    assert row["values"] == dict(zip("01", found.values[3].tolist(), strict=True))
    extreme = ll.Predictions(
        np.array([[-800.0, 0.0, 800.0]]), ("0",), ("a", "b", "c"), 1, "torch-eager", "last", "values", True
    )
    assert extreme.probabilities.tolist() == [[0.0, 0.5, 1.0]]
    for loss, knows in (
        (F.binary_cross_entropy_with_logits, True),
        (torch.nn.MultiLabelSoftMarginLoss(), True),
        (lambda outputs, targets: F.binary_cross_entropy_with_logits(outputs, targets), False),
        (torch.nn.MSELoss(), False),
    ):
        found = train("labels", loss=loss, max_steps=1).predict(IMAGES[:2])
        assert found.has_logits is knows
        if not knows:
            with pytest.raises(ll.SpecError, match=r"no logits as far as it knows.*predictions.values"):
                found.probabilities  # noqa: B018


WORDS: dict[str, tuple[str, str, str]] = {
    "classes": ("values", "classes", r"the run's targets are values, no class numbers. Take predictions.values"),
    "names": ("masks", "names", "the run's targets are masks, no class numbers. Take predictions.masks"),
    "shares": ("masks", "probabilities", "the run's targets are masks"),
    "masks": ("values", "masks", "the run's targets are values"),
}


@pytest.mark.parametrize(("case", "name", "words"), WORDS.values(), ids=WORDS)
def test_what_an_answer_does_not_have_is_said(case: str, name: str, words: str, results: dict[str, ll.Result]) -> None:
    with pytest.raises(ll.SpecError, match=words):
        getattr(results[case].predict(IMAGES[:1]), name)
    with pytest.raises(ll.SpecError, match="top_k=2: is for class numbers"):
        results[case].predict(IMAGES[:1], top_k=2)


def test_a_table_has_a_column_for_each_value(results: dict[str, ll.Result], tmp_path: Path) -> None:
    data = ll.Dataset("pets", IMAGES[:32], VALUES[:32], IMAGES[32:], VALUES[32:], class_names=["age", "=weight"])
    found = train("values", data=data, max_steps=1).predict(IMAGES[:3])
    for _ in range(2):  # the second time over its own file
        found.to_csv(tmp_path / "values.csv")
    header, *rows = list(csv.reader((tmp_path / "values.csv").read_text().splitlines()))
    assert header == ["image", "value age", "value '=weight"]
    assert [[float(each) for each in row[1:]] for row in rows] == found.values.tolist()
    assert str(found).splitlines()[0].split() == ["image", "value", "age", "value", "'=weight"]
    shares = results["labels"].predict(IMAGES[:2])
    shares.to_csv(tmp_path / "labels.csv")
    rows = list(csv.DictReader((tmp_path / "labels.csv").read_text().splitlines()))
    assert float(rows[1]["probability 1"]) == shares.probabilities[1, 1]
    assert float(rows[1]["value 0"]) == shares.values[1, 0]
    results["one value"].predict(IMAGES[:2]).to_csv(tmp_path / "one.csv")
    assert (tmp_path / "one.csv").read_text().splitlines()[0] == "image,value 0"
    with pytest.raises(ll.SpecError, match=r"shape \(2, 3, 8, 8\), which is no table. predictions.save"):
        results["masks"].predict(IMAGES[:2]).to_csv(tmp_path / "masks.csv")
    (tmp_path / "own.csv").write_text("image,name\n")
    with pytest.raises(ll.SpecError, match="has not written"):
        found.to_csv(tmp_path / "own.csv")


def test_masks_and_values_become_files(results: dict[str, ll.Result], tmp_path: Path) -> None:
    found = results["masks"].predict(IMAGES[:3])
    (tmp_path / "masks").mkdir()  # an empty folder is taken
    files = found.save(tmp_path / "masks")
    assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
    for file, mask in zip(files, found.masks, strict=True):
        np.testing.assert_array_equal(np.array(Image.open(file)), mask)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "masks"], "nothing unfinished is left"
    with pytest.raises(ll.SpecError, match="the folder is not empty"):
        found.save(tmp_path / "masks")
    counts = json.loads(found.to_json())["predictions"][1]["pixels"]
    assert counts == {str(each): int((found.masks[1] == each).sum()) for each in np.unique(found.masks[1])}

    values = results["values"].predict(list(IMAGES[:2]))
    named = ll.Predictions(**{**vars_of(values), "images": ("a/x.jpg", "b/X.png")})
    files = named.save(tmp_path / "values")
    assert [file.name for file in files] == ["0-x.npy", "1-X.npy"]
    assert np.load(files[1]).tolist() == values.values[1].tolist()

    many = np.zeros((1, 300, 1, 2), np.float32)
    many[0, 299, 0, 1] = 1.0
    names = tuple(map(str, range(300)))
    wide = ll.Predictions(many, ("w",), names, 1, "torch-eager", "last", "masks")
    assert np.array(Image.open(wide.save(tmp_path / "wide")[0])).tolist() == [[0, 299]]


def vars_of(found: ll.Predictions) -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__dataclass_fields__}


def test_a_mask_needs_a_number_for_each_class() -> None:
    def binary() -> Any:
        torch.manual_seed(0)
        return torch.nn.Conv2d(3, 1, 1)

    result = train("masks", model=binary, max_steps=1, data=halves((MASKS[:, :8] == 1).astype(np.int64)),
                   loss=lambda outputs, targets: F.binary_cross_entropy_with_logits(
                       outputs[:, 0], targets.to(outputs.dtype)))  # fmt: skip
    found = result.predict(IMAGES[:2])
    with pytest.raises(ll.SpecError, match=r"shape \(2, 1, 8, 8\); must be a number for each class of each pixel"):
        found.masks  # noqa: B018
    assert found.values.shape == (2, 1, 8, 8)
    rows = json.loads(found.to_json())["predictions"]
    assert rows[1]["shape"] == [1, 8, 8] and rows[1]["highest"] == float(found.values[1].max())
    assert "lowest" in str(found)


@pytest.mark.parametrize("case", CASES)
def test_an_evaluation_is_the_loss_and_the_metrics(case: str, results: dict[str, ll.Result], place: Path) -> None:
    result, data, given = results[case], halves(TARGETS[case]), {"model": CASES[case][0]}
    found = result.evaluate(data)
    assert found.loss == pytest.approx(loss_of(case, result, slice(32, 40)), rel=1e-5)
    assert found.loss == pytest.approx(result.logged["test loss"][-1, 1], rel=1e-6), "as the run has said"
    assert found.count == 8 and not found.confusion.size and np.isnan(found.accuracy) and found.metrics == {}
    assert str(found) == f"loss {found.loss:.4f} on 8 images of arrays"
    whole = result.evaluate(data, part="all", batch_size=40, metrics={"error": lambda outputs, targets: len(targets)})
    parts = [loss_of(case, result, part) for part in (slice(0, 32), slice(32, 40))]
    assert whole.loss == pytest.approx((32 * parts[0] + 8 * parts[1]) / 40, rel=1e-5)
    assert whole.metrics == {"error": 40.0} and "error 40" in str(whole)
    assert json.loads(whole.to_json()) == {
        "data": "arrays", "backend": "torch-eager", "weights": "last", "images": 40, "loss": whole.loss,
        "metrics": {"error": 40.0},
    }  # fmt: skip
    again = ll.Result.load(place / f"{case}.npz").evaluate(data, loss=CASES[case][2], **given)
    assert again.loss == found.loss
    with pytest.raises(ll.SpecError, match="which have no confusion matrix"):
        found.to_csv(place / "confusion.csv")


def test_a_loss_that_no_file_holds_is_said_and_can_be_given(
    results: dict[str, ll.Result], place: Path, capsys: Any
) -> None:
    loaded, make = ll.Result.load(place / "values.npz"), CASES["values"][0]
    found = loaded.evaluate(halves(VALUES), model=make)
    assert np.isnan(found.loss) and json.loads(found.to_json())["loss"] is None and "loss not known" in str(found)
    assert "no file holds the run's own. Give it again: loss=..." in capsys.readouterr().err
    given = loaded.evaluate(halves(VALUES), model=make, loss="torch.nn.functional:mse_loss")
    assert given.loss == results["values"].evaluate(halves(VALUES)).loss
    measured = train("values", metrics={"error": error}, max_steps=4)
    assert measured.evaluate(halves(VALUES)).metrics == {"error": measured.logged["error"][-1, 1]}


BAD: dict[str, tuple[str, Any, dict[str, Any], type[Exception], str]] = {
    "classes": ("values", halves(np.arange(40) % 2), {}, ll.DataError, "a class number for each image, but the model"),
    "width": ("values", halves(np.zeros((40, 3), np.float32)), {}, ll.DataError, "3 values for each image, but.* on 2"),
    "more classes": ("masks", halves(MASKS % 255 + 2), {}, ll.DataError, "classes up to 4, but the model.* on 3"),
    "cross-entropy": ("values", halves(VALUES), {"loss": "cross_entropy"}, ll.SpecError, "one class number for each"),
    "a table": ("values", halves(VALUES), {"loss": {"function": 3}}, ll.SpecError, "loss=.* must be 'cross_entropy'"),
    "a number": ("values", halves(VALUES), {"loss": 3}, ll.SpecError, "loss=3: must be 'cross_entropy'"),
    "broadcast": ("one value", halves(VALUES[:, 0]), {"loss": torch.nn.MSELoss()}, ll.SpecError, "target size"),
    "metric": ("values", halves(VALUES), {"metrics": [3]}, ll.SpecError, "metrics: 'int' is 3"),
}


@pytest.mark.parametrize(("case", "data", "given", "kind", "words"), BAD.values(), ids=BAD)
def test_data_and_losses_that_do_not_fit_are_refused(
    case: str, data: Any, given: dict[str, Any], kind: type[Exception], words: str, results: dict[str, ll.Result]
) -> None:
    with pytest.raises(kind, match=words):
        results[case].evaluate(data, **given)


def test_a_run_on_classes_does_not_take_values() -> None:
    result = train("values", data=halves(np.arange(40) % 2), loss="cross_entropy", max_steps=1)
    with pytest.raises(ll.DataError, match="2 values for each image, but the model was trained on a class number"):
        result.evaluate(halves(VALUES))
    found = result.evaluate(halves(np.arange(40) % 2), metrics={"first": lambda outputs, targets: targets[0]})
    assert found.metrics == {"first": 0.0} and str(found).endswith("first 0")


@pytest.mark.parametrize("case", CASES)
def test_exports_answer_as_torch_does(case: str, results: dict[str, ll.Result], tmp_path: Path) -> None:
    result, expected = results[case], answered(case, results[case], IMAGES[:5]).numpy()
    exported = result.export(tmp_path / "m.pt2", check=False)
    program = torch.export.load(exported.path).module()
    np.testing.assert_allclose(program(torch.from_numpy(IMAGES[:5])).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    state = torch.load(result.export(tmp_path / "w.pth").path, weights_only=True)
    model = CASES[case][0]()
    model.load_state_dict(state)
    np.testing.assert_array_equal(model(torch.from_numpy(IMAGES[:5])).detach().numpy(), expected)


def onnx_answers(folder: str) -> dict[str, object]:
    """The cases as ONNX: how far it is from the frameworks, and what onnxruntime itself answers."""
    import onnxruntime

    from tests.support.number_targets import IMAGES, train

    found: dict[str, object] = {}
    for case in ("values", "one value", "masks"):
        result = train(case, epochs=1)
        exported = result.export(f"{folder}/{case}.onnx")
        session = onnxruntime.InferenceSession(exported.path, providers=["CPUExecutionProvider"])
        (output,) = session.get_outputs()
        answers = session.run(None, {"images": IMAGES[:5]})[0].tolist()
        found[case] = dict(exported.differences), output.name, answers, result.predict(IMAGES[:5]).values.tolist()
    return found


def test_onnx_is_checked_with_both_frameworks(tmp_path: Path) -> None:
    if any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime", "oneflow")):
        pytest.skip("needs ONNX and OneFlow")
    for case, (differences, name, found, expected) in value_of(onnx_answers, str(tmp_path)).items():
        assert name == ("logits" if case == "masks" else "values")
        assert list(differences) == ["torch-eager", "oneflow-eager"]
        assert max(differences.values()) < 1e-5  # float32 in another order
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)  # likewise


@pytest.mark.parametrize("case", ["labels", "masks"])
def test_each_backend_answers_and_measures_so(case: str, backend: Any) -> None:
    result = train(case, epochs=1)
    found = result.predict(IMAGES[:5], backend=backend.name)
    np.testing.assert_allclose(found.values, answered(case, result, IMAGES[:5]), rtol=1e-4, atol=1e-5)  # as above
    evaluation = result.evaluate(halves(TARGETS[case]), backend=backend.name)
    assert evaluation.loss == pytest.approx(loss_of(case, result, slice(32, 40)), rel=1e-5)
