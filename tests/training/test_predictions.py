"""Predictions and evaluations of what a run has come to: in its process, from its file, from its folder."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.trained import CLASSES, SIZE, data, make_net, pixels, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def result(torch: Any, folder: Path) -> ll.Result:
    torch.set_num_threads(1)
    return train(
        ema_decay=0.5, checkpoints=ll.Checkpoints(folder / "run", every="1 epoch", keep=5), save=folder / "result.npz"
    )


def by_hand(torch: Any, result: ll.Result, images: Any, weights: str = "ema_weights") -> Any:
    """The logits by torch alone."""
    net = make_net()
    arrays = {**getattr(result, weights), **result.unsaved}
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        tensor.data.copy_(torch.tensor(arrays[name]))
    x = (images.astype(np.float64) / 255 - result.model_input.mean) / result.model_input.std
    return net.eval()(torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float32))).detach().numpy()


def test_predictions_are_those_of_torch_by_hand(torch: Any, result: ll.Result) -> None:
    images = pixels(5, 7)
    for weights, arrays in (("average", "ema_weights"), ("last", "weights")):
        found = result.predict(images, top_k=2, batch_size=2, weights=weights)
        expected = by_hand(torch, result, images, arrays)
        assert found.weights == weights and np.allclose(found.logits, expected, atol=1e-6)  # float32 in another order
        shares = torch.tensor(expected).double().softmax(1)
        assert np.allclose(found.probabilities, shares, atol=1e-6)
        assert found.classes.tolist() == shares.topk(2).indices.tolist()
    assert result.predict(images).weights == "average", "where there is one"


def test_what_is_not_saved_in_a_state_dict_counts_too(result: ll.Result) -> None:
    assert result.unsaved["scale"] > 1, "the run has changed it"
    other = ll.Result(**{**vars(result), "unsaved": {}})
    assert not np.allclose(other.predict(pixels(2)).logits, result.predict(pixels(2)).logits)


def test_a_file_and_a_folder_predict_as_the_run_does(result: ll.Result, folder: Path) -> None:
    expected = result.predict(pixels(4)).logits
    for path in (folder / "result.npz", folder / "run"):
        again = ll.Result.load(path, trust=True)
        assert again.predict(pixels(4)).logits.tobytes() == expected.tobytes()
        assert again.model_input == result.model_input and again.losses.tolist() == result.losses.tolist()
        with pytest.raises(ll.SpecError, match="--trust"):
            ll.Result.load(path).predict(pixels(4))
        assert ll.Result.load(path).predict(pixels(4), model=make_net).logits.tobytes() == expected.tobytes()
    assert "ms per step" not in str(ll.Result.load(folder / "run"))


def test_a_checkpoint_of_a_folder_is_chosen(result: ll.Result, folder: Path) -> None:
    first = ll.Result.load(folder / "run", checkpoint=3)
    assert len(first.losses) == 3 and len(ll.Result.load(folder / "run").losses) == 6
    best = ll.Result.load(folder / "run", checkpoint="best", trust=True)
    assert best.evaluate(data(), weights="last").accuracy == max(result.accuracies)
    for wrong in ("newest", -1, 1.5, True, None):
        with pytest.raises(ll.SpecError, match="'last', 'best', or a number"):
            ll.Result.load(folder / "run", checkpoint=wrong)  # type: ignore[arg-type]
    with pytest.raises(ll.CheckpointError, match=r"no checkpoint after 4 updates.* 3, 6"):
        ll.Result.load(folder / "run", checkpoint=4)
    with pytest.raises(ll.SpecError, match="no folder"):
        ll.Result.load(folder / "result.npz", checkpoint="best")


def test_evaluation_says_what_the_run_measured(torch: Any, result: ll.Result) -> None:
    found = result.evaluate(data(), weights="last")
    assert found.accuracy == result.accuracies[-1] and result.evaluate(data()).accuracy == result.ema_accuracies[-1]
    logits = torch.tensor(by_hand(torch, result, data()[2], "weights"))
    labels = torch.tensor(data()[3])
    assert found.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    expected = np.zeros((CLASSES, CLASSES), int)
    for true, taken in zip(labels.tolist(), logits.argmax(1).tolist(), strict=True):
        expected[true, taken] += 1
    assert found.confusion.tolist() == expected.tolist() and found.count == 7
    assert found.class_accuracies.tolist() == [row[index] / sum(row) for index, row in enumerate(expected.tolist())]
    assert result.evaluate(data(), batch_size=3, weights="last").confusion.tolist() == expected.tolist()


def test_a_class_without_images_is_not_known(result: ll.Result) -> None:
    x, y, x_test, _ = data()
    found = result.evaluate((x, y, x_test, np.zeros(7, int)))
    assert np.isnan(found.class_accuracies[1:]).all() and json.loads(found.to_json())["classes"][1]["accuracy"] is None


def test_classes_are_named_and_matched_by_name(result: ll.Result) -> None:
    names = ("cat", "dog", "emu")
    takes = type(result.model_input)(**{**vars(result.model_input), "class_names": names})
    named = ll.Result(**{**vars(result), "model_input": takes})
    found = named.predict(pixels(3), top_k=3)
    assert [[names.index(each) for each in row] for row in found.names] == found.classes.tolist()
    dataset = ll.Dataset("pets", *data(), class_names=("emu", "cat", "dog"))
    there = named.evaluate(dataset, weights="last")
    turned = [1, 2, 0]  # 'cat' of the model is 1 there
    assert there.class_names == names
    assert there.confusion.sum(1).tolist() == np.bincount(data()[3], minlength=3)[turned].tolist()
    with pytest.raises(ll.DataError, match="does not know the class 'fox'"):
        named.evaluate(ll.Dataset("pets", *data(), class_names=("cat", "dog", "fox")))
    every = named.evaluate(dataset, part="all")
    assert every.count == 31 and named.evaluate(dataset, part="train").count == 24
    assert (every.confusion - named.evaluate(dataset, part="train").confusion).tolist() == named.evaluate(
        dataset
    ).confusion.tolist()


def test_data_that_are_not_the_models_are_refused(result: ll.Result) -> None:
    x, y, x_test, y_test = data()
    small = (x[:, :4], y, x_test[:, :4], y_test)
    floats = tuple(part.transpose(0, 3, 1, 2) / 255 if part.ndim == 4 else part for part in data())
    for wrong, words in (
        (small, r"\(3, 4, 6\), but the model was trained on \(3, 6, 6\)"),
        (floats, "the images are floats, but the model was trained on uint8"),
        ((x, y, x_test, y_test + 1), "the labels go up to 3, but the model was trained on 3 classes"),
    ):
        with pytest.raises(ll.DataError, match=words):
            result.evaluate(wrong)
    with pytest.raises(ll.SpecError, match=r"trained on arrays.*give the data again"):
        result.evaluate()
    for arguments, words in (
        ({"top_k": 0}, "top_k"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"weights": "best"}, "'average', 'last'"),
        ({"backend": "torch"}, "backend='torch'"),
        ({"device": 3}, "device=3"),
        ({"model": lambda: sys.modules["torch"].nn.Linear(3, 3)}, "do not fit the model"),
    ):
        with pytest.raises((ll.SpecError, ll.CheckpointError), match=words):
            result.predict(pixels(1), **arguments)


def test_a_run_without_an_average_and_one_on_floats(torch: Any) -> None:
    floats = tuple(part.transpose(0, 3, 1, 2) / 255 if part.ndim == 4 else part for part in data())
    run = train(data=floats, epochs=1)
    assert run.predict(floats[2]).weights == "last" and run.evaluate(floats).accuracy == run.accuracies[-1]
    with pytest.raises(ll.SpecError, match="no moving average"):
        run.predict(floats[2], weights="average")
    with pytest.raises(ll.DataError, match="prepared before"):
        run.predict(pixels(2))


def test_image_size_and_labels_that_are_beyond_the_data(torch: Any, folder: Path) -> None:
    run = train(image_size=9, epochs=1)
    assert run.evaluate(data()).accuracy == run.accuracies[-1]
    Image.fromarray(pixels(1)[0]).save(folder / "x.png")
    assert np.array_equal(run.predict(folder / "x.png").logits, run.predict(pixels(1)).logits)
    assert run.predict(np.zeros((2, 11, 5, 3), np.uint8)).logits.shape == (2, CLASSES), "the run resizes"


def test_csv_and_json_and_a_file_of_somebody_else(result: ll.Result, tmp_path: Path) -> None:
    found = result.predict(pixels(2), top_k=2)
    for _ in range(2):  # ours is replaced
        found.to_csv(tmp_path / "p.csv")
        result.evaluate(data()).to_csv(tmp_path / "c.csv")
    rows = (tmp_path / "p.csv").read_text().splitlines()
    assert len(rows) == 5 and rows[1].split(",")[:3] == ["0", "1", str(found.classes[0, 0])]
    assert [row["class"] for row in json.loads(found.to_json())["predictions"]] == found.classes.ravel().tolist()
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    for write in (found.to_csv, result.evaluate(data()).to_csv):
        with pytest.raises(ll.SpecError, match="not written"):
            write(tmp_path / "mine.csv")


def test_a_damaged_run_and_one_without_weights(result: ll.Result, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder / "run", run)
    newest = sorted((run / "checkpoints").iterdir())[-1]
    content = (newest / "weights.safetensors").read_bytes()
    (newest / "weights.safetensors").write_bytes(content[:-1] + b"x")
    with pytest.raises(ll.CheckpointError, match=r"damaged.*--checkpoint 3"):
        ll.Result.load(run)
    assert len(ll.Result.load(run, checkpoint=3).losses) == 3
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ll.CheckpointError, match=r"no weights.*layered-lr resume"):
        ll.Result.load(run)
    with pytest.raises(ll.CheckpointError, match="holds no run"):
        ll.Result.load(tmp_path)


def test_a_run_on_a_folder_names_classes_and_fits_files_as_it_did(torch: Any, tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3)):
        for label, name in enumerate(("ant", "bee", "cow")):
            (tmp_path / part / name).mkdir(parents=True)
            for index, image in enumerate(pixels(count, label)):
                sides = (9, 6) if index % 2 else (6, 8)
                Image.fromarray(image).resize(sides).save(tmp_path / part / name / f"{index}.png")
    run = train(data=ll.ImageFolder(tmp_path, size=6, fit="pad"), epochs=1, batch_size=6, save=tmp_path / "r.npz")
    again = ll.Result.load(tmp_path / "r.npz", trust=True)
    found = again.predict(tmp_path / "val", top_k=3)
    dataset = ll.ImageFolder(tmp_path, size=6, fit="pad").load()
    assert np.array_equal(found.logits, again.predict(np.asarray(dataset.x_test)).logits), "decoded as in the run"
    assert set(found.names[0]) == {"ant", "bee", "cow"} and found.images[0].endswith("val/ant/0.png")
    for given in (None, tmp_path, f"folder:{tmp_path}"):
        evaluation = again.evaluate(given)
        assert evaluation.accuracy == run.accuracies[-1] and evaluation.class_names == ("ant", "bee", "cow")
    with pytest.raises(ll.DataError, match=r"is \d+x\d+"):
        again.predict(tmp_path / "val", resize=False)
    assert again.model_input == run.model_input and run.model_input is not None and run.model_input.digest


def test_a_run_on_a_grey_folder_without_a_size_is_evaluated_on_folders(torch: Any, tmp_path: Path) -> None:
    for label, name in enumerate(("ant", "bee", "cow")):
        for where in ("own", "other"):
            (tmp_path / where / name).mkdir(parents=True)
            for index, image in enumerate(pixels(4, label)):
                Image.fromarray(image[:, :, 0]).resize((8, 6)).save(tmp_path / where / name / f"{index}.png")

    def net() -> Any:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))

    data = ll.ImageFolder(tmp_path / "own", grey=True)
    run = train(net, data=data, epochs=1, batch_size=3, save=tmp_path / "grey.npz")
    for trained in (run, ll.Result.load(tmp_path / "grey.npz")):
        for given in (
            tmp_path / "own",
            tmp_path / "other",
            str(tmp_path / "other"),
            {"folder": str(tmp_path / "own"), "grey": True},
        ):
            assert trained.evaluate(given, model=net).accuracy == run.accuracies[-1]
            assert trained.evaluate(given, model=net, part="all").count == 12


def test_the_runs_folder_is_divided_as_it_was(
    torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for label, name in enumerate(("ant", "bee", "cow")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for index, image in enumerate(pixels(12, label)):
            Image.fromarray(image).save(tmp_path / "own" / name / f"{index}.png")
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    data = ll.ImageFolder("own", size=6, share=0.5, seed=3)
    run = train(data=data, epochs=2, batch_size=6, save=tmp_path / "own.npz")
    expected = run.evaluate()
    for given in (
        tmp_path / "own",
        "own",
        "folder:own",
        tmp_path / "copy",
        ll.ImageFolder("own", 6, share=0.5, seed=3),
    ):
        found = run.evaluate(given)
        assert found.count == 18 and np.array_equal(found.confusion, expected.confusion) and found.loss == expected.loss
    assert "trained on" not in capsys.readouterr().err
    for other in (ll.ImageFolder("own", 6), {"folder": str(tmp_path / "own"), "size": 6}):
        assert run.evaluate(other).count == 6
        assert "of the 6 images to test with are images that the run was trained on" in capsys.readouterr().err
    for name in ("first", "second"):
        shutil.copytree(tmp_path / "own", tmp_path / "parts" / name)
    (tmp_path / "parts" / "first").rename(tmp_path / "parts" / "train")
    (tmp_path / "parts" / "second").rename(tmp_path / "parts" / "held")
    shutil.copytree(tmp_path / "parts", tmp_path / "parts copy")
    for path in (tmp_path / "parts copy" / "held").glob("*/1*.png"):
        path.unlink()
    (tmp_path / "parts copy" / "held" / "ant" / "0.png").write_bytes(b"broken")
    parted = train(data=ll.ImageFolder("parts", size=6, test_folder="held", broken="skip"), epochs=1, batch_size=6)
    assert parted.evaluate("parts copy").count == 9 * 3 - 1  # as the run reads its own
    capsys.readouterr()
    run.evaluate(ll.ImageFolder("own", 6), part="all")
    assert "trained on" not in capsys.readouterr().err
    shutil.copy(tmp_path / "own" / "ant" / "0.png", tmp_path / "own" / "ant" / "new.png")
    run.evaluate("own")
    assert "'own' is not what the run was trained on: it has changed since" in capsys.readouterr().err


def test_a_share_of_given_samples_is_told(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Another share than the run's: some of these images are those that it was trained on."""
    samples = [(image, label) for label in range(3) for image in pixels(10, label)]
    run = train(data=ll.Samples(samples, share=0.5, seed=7), epochs=1, batch_size=3)
    assert run.evaluate(ll.Samples(samples)).count == 6
    assert "evaluate: 6 of the 30 samples are measured, a share of each class. The run may" in capsys.readouterr().err
    assert run.evaluate(ll.Samples(samples), part="all").count == 30
    run.evaluate(ll.Samples(samples, samples[:4]))
    assert "samples are measured" not in capsys.readouterr().err


def answers_of_all_backends(backends: list[str]) -> dict[str, list[object]]:
    from tests.support.trained import data, make_plain_net, pixels, train

    trained = {name: train(make_plain_net, backend=name, epochs=1) for name in backends[:2]}
    return {
        f"{ran} {name}": [
            result.predict(pixels(5), backend=name, batch_size=2).logits.tolist(),
            result.evaluate(data(), backend=name).confusion.tolist(),
        ]
        for ran, result in trained.items()
        for name in backends
    }


def test_every_backend_answers_alike(torch: Any, oneflow: Any) -> None:
    backends = ["torch-eager", "oneflow-eager", "oneflow-graph", "torch-compile"]
    found = value_of(answers_of_all_backends, backends)
    for ran in backends[:2]:
        logits, confusion = found[f"{ran} torch-eager"]
        for name in backends:
            assert np.allclose(found[f"{ran} {name}"][0], logits, atol=1e-5), name  # float32, sums in other orders
            assert found[f"{ran} {name}"][1] == confusion


def test_a_file_of_an_older_version_says_less(torch: Any, result: ll.Result, tmp_path: Path) -> None:
    older = ll.Result(**{**vars(result), "model_input": None, "unsaved": {}})
    older.save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays["about"]))
    del about["input"]
    np.savez(tmp_path / "old.npz", **{**arrays, "about": np.array(json.dumps(about))})
    again = ll.Result.load(tmp_path / "old.npz")
    with pytest.raises(ll.SpecError, match="give the data again"):
        again.predict(pixels(1), model=make_net)
    for wrong in ({"mean": ["x"] * 3}, {"num_classes": -1}, {"class_names": ["a"]}, {"std": [0, 0, 0]}, 5):
        table = {**result.model_input.to_dict(), **wrong} if isinstance(wrong, dict) else wrong
        changed = {**arrays, "about": np.array(json.dumps({**about, "input": table}))}
        np.savez(tmp_path / "old.npz", **changed)
        with pytest.raises(ll.CheckpointError, match=r"old\.npz"):
            ll.Result.load(tmp_path / "old.npz")
    assert result.model_input.image_shape[1] == SIZE


def test_what_a_stranger_wrote_is_refused_in_one_line(result: ll.Result, tmp_path: Path) -> None:
    def changed(**changes: Any) -> ll.Result:
        own = {**vars(result), **changes}
        ll.Result(**own).save(tmp_path / "r.npz")
        return ll.Result.load(tmp_path / "r.npz", trust=True)

    def use(forged: ll.Result) -> None:
        forged.predict(pixels(1))
        forged.evaluate(None if forged.options.get("data") == 5 else data())

    weights = dict(result.weights)
    scale = {"nowhere.scale": np.ones(1), "body.0.weight": np.array(["x"])}
    for forged in (
        changed(unsaved=scale),
        changed(weights={**weights, "head.weight": np.zeros((3, 5), np.float32)}, ema_weights={}),
        changed(weights={**weights, "head.weight": np.array(["a"])}, ema_weights={}),
        changed(weights={name: weights[name] for name in list(weights)[:2]}, ema_weights={}),
        changed(weights={}, ema_weights={}),
        changed(weights={**weights, "head.bias": np.full(3, np.nan, np.float32)}, ema_weights={}),
        changed(options={**result.options, "batch_size": "many"}),
        changed(options={**result.options, "precision": {"dtype": []}}),
        changed(options={**result.options, "model": "no.such.module:thing"}),
        changed(options={**result.options, "data": 5, "data_root": []}),
    ):
        with pytest.raises(ll.LayeredLRError) as caught:
            use(forged)
        assert "\n" not in str(caught.value)
