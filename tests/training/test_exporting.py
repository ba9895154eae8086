"""Exports of a trained model, read and run without the library."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from tests.support.isolation import value_of
from tests.support.trained import data, make_net, make_plain_net, train


@pytest.fixture(scope="module")
def result(torch: Any) -> ll.Result:
    return train(make_plain_net, epochs=1)


def exports_of_a_run_in_oneflow(folder: str) -> dict[str, object]:
    """A run of OneFlow as every format; what runs them is not the library."""
    import json
    from pathlib import Path

    import numpy as np
    import onnx
    import onnxruntime
    import torch

    from tests.support.trained import make_plain_net, pixels, train

    result = train(make_plain_net, backend="oneflow-eager", epochs=1)
    said = [result.export(f"{folder}/plain.onnx"), result.export(f"{folder}/pixels.onnx", normalise=True)]
    said += [result.export(f"{folder}/{name}") for name in ("plain.pt2", "w.pth", "w.safetensors", "w.oneflow")]
    images = pixels(5, 3)
    expected = result.predict(images).logits
    assert np.allclose(result.predict(images, backend="torch-eager").logits, expected, atol=1e-5)
    normalised = (images / 255 - np.array(result.model_input.mean)) / np.array(result.model_input.std)
    normalised = normalised.transpose(0, 3, 1, 2).astype(np.float32)

    def run(name: str, given: np.ndarray) -> np.ndarray:
        session = onnxruntime.InferenceSession(f"{folder}/{name}", providers=["CPUExecutionProvider"])
        return session.run(None, {"images": given})[0]

    found = {
        "plain.onnx": run("plain.onnx", normalised),
        "pixels.onnx": run("pixels.onnx", np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        "plain.pt2": torch.export.load(f"{folder}/plain.pt2").module()(torch.tensor(normalised)).detach().numpy(),
    }
    import oneflow

    states = {
        "torch": torch.load(f"{folder}/w.pth", weights_only=True),
        "oneflow": oneflow.load(f"{folder}/w.oneflow"),
    }
    net = make_plain_net().eval()
    net.load_state_dict(states["torch"])
    found["w.pth"] = net(torch.tensor(normalised)).detach().numpy()
    model = onnx.load(f"{folder}/plain.onnx")
    return {
        "differences": {name: float(np.abs(logits - expected).max()) for name, logits in found.items()},
        "said": [dict(each.differences) for each in said],
        "same": all(
            np.array_equal(state[name].numpy(), array)
            for state in states.values()
            for name, array in result.weights.items()
        ),
        "named": json.loads({each.key: each.value for each in model.metadata_props}["layered_lr.input"]),
        "traces": b"trained.py" in Path(folder, "plain.onnx").read_bytes(),
    }


def test_a_run_of_oneflow_in_every_format(torch: Any, oneflow: Any, tmp_path: Path) -> None:
    found = value_of(exports_of_a_run_in_oneflow, str(tmp_path))
    assert max(found["differences"].values()) < 1e-5  # float32, sums in other orders
    assert [set(each) for each in found["said"]] == [{"torch-eager", "oneflow-eager"}] * 3 + [set()] * 3
    assert all(far < 1e-5 for each in found["said"] for far in each.values())
    assert found["same"] and found["named"]["image_shape"] == [3, 6, 6] and not found["traces"]


def test_what_was_exported_wrongly_is_not_written(
    result: ll.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layered_lr_torch import export

    own = export.make_program
    monkeypatch.setattr(export, "make_program", lambda model, *rest: own(_turned(model), *rest))
    with pytest.raises(ll.Unsupported, match=r"answers otherwise than torch-eager.*Nothing is written"):
        result.export(tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def _turned(model: Any) -> Any:
    from torch import nn

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, images: Any) -> Any:
            return self.inner(images).clamp(min=0.0)

    return Turned()


def test_what_cannot_be_exported_says_why_in_one_line(torch: Any, tmp_path: Path) -> None:
    class Branching(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_net()

        def forward(self, images: Any) -> Any:
            return self.inner(images * 2 if float(images.sum()) > 1e9 else images)

    class FixedBatch(Branching):
        def forward(self, images: Any) -> Any:
            return self.inner(images).reshape(2 if len(images) == 2 else len(images), -1)

    for model in (Branching, FixedBatch):
        run = train(model, max_steps=1)
        with pytest.raises(ll.Unsupported, match=r"export: .*\.safetensors") as caught:
            run.export(tmp_path / "m.pt2")
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
        assert run.export(tmp_path / "w.safetensors", overwrite=True).format == "safetensors"
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_onnx_without_its_packages(result: ll.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else own(name, *rest))
    with pytest.raises(ll.ToolUnavailable, match=r"needs onnx, which is not installed.*layered-lr\[export\]"):
        result.export(tmp_path / "m.onnx")


def test_what_is_there_stays_without_a_word(result: ll.Result, tmp_path: Path) -> None:
    for name in ("m.pth", "m.safetensors", "m.onnx"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(ll.SpecError, match=r"there is a file already.*--overwrite"):
            result.export(tmp_path / name)
        assert (tmp_path / name).read_text() == "mine"
    (tmp_path / "folder.oneflow").mkdir()
    (tmp_path / "folder.oneflow" / "mine").touch()
    for overwrite in (False, True):
        with pytest.raises(ll.SpecError, match="there is a folder already"):
            result.export(tmp_path / "folder.oneflow", overwrite=overwrite)
    assert result.export(tmp_path / "m.pth", overwrite=True).path == tmp_path / "m.pth"
    (tmp_path / "link.pth").symlink_to(tmp_path / "m.pth")
    with pytest.raises(ll.SpecError, match="symbolic link"):
        result.export(tmp_path / "link.pth", overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "m.txt"}, "must end in one of .onnx"),
        ({"path": "m.pth", "format": "pickle"}, "format='pickle'"),
        ({"path": "m.pth", "normalise": True}, "weights alone"),
        ({"path": "m.pth", "check": "yes"}, "check='yes'"),
        ({"path": "m.pth", "weights": "best"}, "'average', 'last'"),
        ({"path": 3}, "must be a path"),
        ({"path": "no/m.pth"}, "folder that exists"),
    ],
)
def test_wrong_arguments(
    result: ll.Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ll.SpecError, match=words):
        result.export(**arguments)


def test_a_card_says_everything_and_nothing_in_it_is_markup(result: ll.Result, tmp_path: Path) -> None:
    assert result.model_input is not None
    takes = type(result.model_input)(**{**vars(result.model_input), "class_names": ("<b>a|b", "`c`", "[x](y)")})
    options = {**result.options, "model": "a|b<script>\n# no heading"}
    odd = ll.Result(**{**vars(result), "model_input": takes, "options": options, "versions": {"torch": "2|3"}})
    text = odd.card(tmp_path / "CARD.md")
    assert (tmp_path / "CARD.md").read_text() == text and odd.card(tmp_path / "CARD.md") == text, "a card is replaced"
    assert takes.digest == ll.Dataset("x", *data()).digest() and takes.digest in text
    for words in ("## Plan", "| rest |", "2\\|3", "\\<b\\>a\\|b", "0.1", "test accuracy, last", "SGD", "24"):
        assert words in text, words
    assert "<script>" not in text and "\n# no heading" not in text
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ll.SpecError, match="not written"):
        result.card(tmp_path / "README.md")
    result.card(tmp_path / "README.md", overwrite=True)
