"""Pretrained weights: files of every kind, names with prefixes, the head of other classes, torch's cache."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.models.pretrained import fit_pretrained

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from layered_lr.training.chosen_model import choose_model  # noqa: E402
from layered_lr.training.options import RunOptions  # noqa: E402
from layered_lr_torch import weight_downloads, zoo_weights  # noqa: E402

NAME = "squeezenet1_1"
FACTS = ll.load_dataset("digits").facts
RNG = np.random.default_rng(0)
DATA = (
    RNG.integers(0, 256, (8, 24, 24, 3), dtype=np.uint8),
    np.arange(8) % 2,
    RNG.integers(0, 256, (4, 24, 24, 3), dtype=np.uint8),
    np.arange(4) % 2,
)
SAID: dict[str, Any] = {"model": NAME, "data": DATA, "batch_size": 4, "max_steps": 1, "progress": False}
STILL = ll.Spec(ll.SGD(0.0))  # whose run ends with the weights that it began with


def make_arrays(classes: int = 1000) -> dict[str, Any]:
    torch.manual_seed(7)
    made = torchvision.models.get_model(NAME, num_classes=classes)
    return {name: tensor.numpy() for name, tensor in made.state_dict().items()}


def save(path: Path, arrays: dict[str, Any]) -> Path:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path)
    else:
        torch.save({"epoch": 3, "state_dict": {n: torch.from_numpy(np.array(a)) for n, a in arrays.items()}}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_a_file_of_any_kind_and_prefix_is_loaded_under_a_new_head(tmp_path: Path, suffix: str, prefix: str) -> None:
    arrays = make_arrays()
    path = save(tmp_path / f"w{suffix}", {prefix + name: array for name, array in arrays.items()})
    options = RunOptions(model=NAME, pretrained=path)
    source: Any = choose_model(options, FACTS).source
    made = {name: tensor.numpy() for name, tensor in source().state_dict().items()}
    new = {name for name in made if name.startswith("classifier.1.")}
    assert made["classifier.1.weight"].shape == (10, 512, 1, 1) and set(source.new) == new
    assert all((made[name] == arrays[name]).all() for name in made.keys() - new)


def test_a_head_for_the_same_classes_is_loaded(tmp_path: Path) -> None:
    path = save(tmp_path / "w.npz", make_arrays(10))
    source: Any = choose_model(RunOptions(model=NAME, pretrained=path), FACTS).source
    assert (source().classifier[1].bias.detach().numpy() == make_arrays(10)["classifier.1.bias"]).all()
    assert source.new == ()


def test_a_run_begins_with_them_and_a_resumed_one_needs_no_file(tmp_path: Path) -> None:
    arrays = make_arrays()
    path = save(tmp_path / "w.npz", arrays)
    result = ll.run(STILL, pretrained=path, checkpoints=tmp_path / "run", **SAID)
    assert (result.weights["features.0.weight"] == arrays["features.0.weight"]).all()
    assert result.options["pretrained"] == str(path)
    path.unlink()
    longer = ll.resume(tmp_path / "run", max_steps=3, data=DATA)
    assert len(longer.losses) == 3 and longer.options["pretrained"] == str(path)


def test_mobilenet_v2_takes_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = torchvision.models.mobilenet_v2().state_dict()
    torch.save(given, tmp_path / "w.pth")
    result = ll.run(STILL, max_steps=1, batch_size=4, pretrained=tmp_path / "w.pth", progress=False)
    assert (result.weights["features.0.0.weight"] == given["features.0.0.weight"].numpy()).all()
    assert result.weights["classifier.1.weight"].shape == (10, 1280)
    assert "new for 10 classes: classifier.1.weight, classifier.1.bias." in capsys.readouterr().err


def build(**options: Any) -> Any:
    source: Any = choose_model(RunOptions(**options), FACTS).source
    return source()


REFUSED = [
    ({"model": "squeezenet1_0"}, "are the weights of another model: 'features.0.weight' has shape (64, 3, 3, 3)"),
    ({"model": "resnet18"}, "are the weights of another model: they lack 60 of the model's parameters, 'conv1.weight'"),
    ({"pretrained": "IMAGENET1K_V3"}, "has the weights IMAGENET1K_V1; give one of them"),
    ({"pretrained": "missing.pth"}, "pretrained='missing.pth': there is no such file"),
    ({"model": torch.nn.Identity}, "is for models known by name"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_others_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = save(tmp_path / "w.npz", make_arrays())
    with pytest.raises(ll.LayeredLRError) as refused:
        build(**{"model": NAME, "pretrained": path, **options})
    assert words in str(refused.value)


def test_infinite_numbers_are_refused(tmp_path: Path) -> None:
    arrays = make_arrays()
    arrays["features.0.bias"] = np.full(64, np.inf, np.float32)
    source: Any = choose_model(RunOptions(model=NAME, pretrained=save(tmp_path / "w.npz", arrays)), FACTS).source
    with pytest.raises(ll.SpecError, match=r"'features\.0\.bias' holds NaN or infinity"):
        source()


@pytest.mark.parametrize("wrong", [np.full(3, 1 + 2j), np.full(3, 2), np.full(3, True), np.full(3, 1e300)])
@pytest.mark.parametrize("tensors", [False, True])
def test_other_kinds_of_numbers_are_refused(wrong: Any, tensors: bool) -> None:
    """They were cast: of complex numbers the imaginary part was lost, and 1e300 was infinity."""
    own: Any = {"conv.bias": torch.zeros(3) if tensors else np.zeros(3, np.float32)}
    with pytest.raises(ll.SpecError, match=r"^pretrained='w': 'conv\.bias' holds .*float32"):
        fit_pretrained("w", {"conv.bias": wrong}, own, set(own), ["fc"])


def test_weights_without_running_statistics_are_refused() -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    parameters = {name: tensor.detach().numpy() for name, tensor in net.named_parameters()}
    own = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    with pytest.raises(ll.SpecError, match=r"lack 2 running statistics of normalisations, '1\.running_mean' first"):
        fit_pretrained("w", parameters, own, set(parameters), ["2"])
    counted = {name: array for name, array in own.items() if "num_batches" not in name}  # as in old files
    assert set(fit_pretrained("w", counted, own, set(parameters), ["2"]).arrays) == set(counted)


def test_old_names_of_densenet_and_auxiliary_heads() -> None:
    own = {"features.denseblock1.denselayer1.norm1.weight": np.zeros(3), "classifier.weight": np.zeros((2, 3))}
    given = {"features.denseblock1.denselayer1.norm.1.weight": np.ones(3), "aux1.fc.weight": np.ones((5, 3))}
    fitted = fit_pretrained("w", given, own, set(own), ["classifier"])
    assert list(fitted.arrays) == list(own)[:1] and fitted.new == ("classifier.weight",)


def test_what_goes_with_the_weights_is_taken_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "squeezenet1_1-b8a52dc0.pth", make_arrays())  # torchvision's own name of the file
    made = choose_model(RunOptions(model=NAME, pretrained=path), FACTS)
    assert made.image_size == 224 and made.normalisation is not None
    np.testing.assert_allclose(made.normalisation[0], [0.485, 0.456, 0.406], rtol=1e-6)
    small = choose_model(RunOptions(model=NAME, pretrained=path, image_size=32), FACTS)
    assert small.image_shape == (3, 32, 32)
    ll.run(STILL, pretrained=path, image_size=32, **SAID)
    said = capsys.readouterr().err
    assert "IMAGENET1K_V1" in said and "32x32" in said and "mean 0.485" in said and "classifier.1" in said
    unknown = choose_model(RunOptions(model=NAME, pretrained=save(tmp_path / "w.npz", make_arrays())), FACTS)
    assert unknown.image_size is None and unknown.normalisation is None


def test_every_form_of_a_name_goes_with_the_same_images() -> None:
    """The name with its class was taken, and the images stayed as they were."""
    forms = ("DEFAULT", "IMAGENET1K_V2", "MobileNet_V2_Weights.IMAGENET1K_V2", "MobileNet_V2_Weights.DEFAULT")
    assert len({zoo_weights.find_transform("mobilenet_v2", form) for form in forms}) == 1
    assert zoo_weights.find_transform("mobilenet_v2", "MobileNet_V2_Weights.IMAGENET1K_V1").name == "IMAGENET1K_V1"
    for wrong in ("ResNet18_Weights.DEFAULT", "MobileNet_V2_Weights.NONE", "MobileNet_V2_WeightsDEFAULT"):
        with pytest.raises(ll.SpecError, match="has the weights IMAGENET1K_V1, IMAGENET1K_V2"):
            zoo_weights.find_transform("mobilenet_v2", wrong)


def test_yes_and_no_are_words_of_the_command() -> None:
    assert RunOptions(pretrained="false").pretrained is False and RunOptions(pretrained="True").pretrained is True


def test_any_capitals_and_any_order_of_bytes(tmp_path: Path) -> None:
    arrays = make_arrays(10)
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "BEST.PTH")
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    for path in (tmp_path / "BEST.PTH", save(tmp_path / "w.npz", swapped)):
        made = build(model=NAME, pretrained=path)
        assert (made.classifier[1].bias.detach().numpy() == arrays["classifier.1.bias"]).all()


def test_what_is_beside_the_weights_is_named(tmp_path: Path) -> None:
    more = save(tmp_path / "w.npz", {**make_arrays(), "queue": np.zeros(3, np.float32)})
    with pytest.raises(
        ll.SpecError, match="holds 1 arrays that the model has not, 'queue' first, beside all of its own"
    ):
        build(model=NAME, pretrained=more)
    result = ll.run(STILL, max_steps=1, batch_size=4, progress=False)
    result.save(tmp_path / "result.npz")
    with pytest.raises(ll.DataError, match=r"is a result of a run, .*Result\.load\('.*'\)\.weights"):
        build(model="mobilenet_v2", pretrained=tmp_path / "result.npz")


def test_floats_are_said_to_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    floats = [part.transpose(0, 3, 1, 2).astype(np.float32) if part.ndim == 4 else part for part in DATA]
    ll.run(STILL, pretrained=save(tmp_path / "w.npz", make_arrays()), **{**SAID, "data": tuple(floats)})
    assert "does not say how its images were; yours are taken as they are." in capsys.readouterr().err


def test_a_plan_refuses_what_can_be_seen_without_a_download(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>")
    other = save(tmp_path / "other.npz", {"conv.weight": np.zeros((2, 2), np.float32)})
    for wrong, words in {
        "IMAGENET1K_V7": "has the weights IMAGENET1K_V1",
        "missing.pth": "there is no such file",
        str(tmp_path / "page.pth"): "not a readable state_dict",
        str(other): "are the weights of another model",
    }.items():
        for model in (NAME, "mobilenet_v2"):
            with pytest.raises(ll.LayeredLRError, match=words):
                ll.plan(STILL, model=model, pretrained=wrong, max_steps=1)
    assert ll.plan(STILL, model=NAME, pretrained=True, image_size=32, max_steps=1).parameters


CONTENT = bytes(range(256)) * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class Server(BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012
    content = CONTENT

    def do_GET(self) -> None:
        range_ = self.headers.get("Range", "")
        type(self).asked.append(range_)
        start = int(range_.removeprefix("bytes=").rstrip("-") or 0)
        self.send_response(206 if range_ else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start:])

    def log_message(self, *_: Any) -> None:
        """Write nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked, Server.content = [], CONTENT
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/w.pth"
    made.shutdown()
    made.server_close()


def test_a_download_goes_on_where_it_stopped_and_is_checked(tmp_path: Path, server: str) -> None:
    file = tmp_path / "checkpoints" / f"w-{DIGEST}.pth"
    file.parent.mkdir()
    file.with_name(file.name + ".partial").write_bytes(CONTENT[:1000])
    assert weight_downloads.fetch(server, file, False).read_bytes() == CONTENT
    assert Server.asked == ["bytes=1000-"] and [each.name for each in file.parent.iterdir()] == [file.name]
    weight_downloads.fetch(server, file, False)
    assert len(Server.asked) == 1  # it is there


def test_a_damaged_file_is_mended(tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / f"w-{DIGEST}.pth"
    file.write_bytes(CONTENT[:-1])
    assert weight_downloads.fetch(server, file, False).read_bytes() == CONTENT
    assert "its digest begins" in capsys.readouterr().err
    Server.content = CONTENT[1:]
    file.write_bytes(b"")
    with pytest.raises(ll.DataError, match="gave is not that file: its digest begins"):
        weight_downloads.fetch(server, file, False)


class Chunks(Server):
    """Ends in the middle of an answer in chunks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"10\r\n" + self.content[:16] + b"\r\n")
        self.wfile.flush()
        self.close_connection = True


def test_a_download_in_chunks_that_breaks_off_is_kept(tmp_path: Path, server: str) -> None:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Chunks)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    file = tmp_path / f"w-{DIGEST}.pth"
    with pytest.raises(ll.DataError, match="the connection ended before the end of the file; try again to go on"):
        weight_downloads.fetch(f"http://127.0.0.1:{made.server_port}/w.pth", file, False)
    made.shutdown()
    made.server_close()
    assert weight_downloads.fetch(server, file, False).read_bytes() == CONTENT and Server.asked == ["bytes=16-"]


def test_one_of_several_downloads_and_the_others_wait(tmp_path: Path, server: str) -> None:
    """They wrote to the same file."""
    file = tmp_path / f"w-{DIGEST}.pth"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: weight_downloads.fetch(server, file, False).read_bytes(), range(4)))
    assert found == [CONTENT] * 4 and Server.asked == [""] and list(tmp_path.iterdir()) == [file]


def test_what_cannot_be_written_is_said_before_a_download(tmp_path: Path, server: str) -> None:
    file = tmp_path / f"w-{DIGEST}.pth"
    file.mkdir()
    with pytest.raises(ll.DataError, match=r"is no plain file, but weights belong there. Move it away"):
        weight_downloads.fetch(server, file, False)
    (tmp_path / "cache").write_text("")
    with pytest.raises(ll.DataError, match=r"cannot be written to .* set TORCH_HOME to another folder"):
        weight_downloads.fetch(server, tmp_path / "cache" / file.name, False)
    assert Server.asked == []


def test_without_a_network_one_line_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weight_downloads, "_download", lambda *_: (_ for _ in ()).throw(OSError("no route to host")))
    with pytest.raises(ll.DataError) as refused:
        choose_model(RunOptions(model=NAME, pretrained=True), FACTS)
    place = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    assert f"Put the file at {place}" in str(refused.value) and "no route to host" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_in_torchs_cache_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weight_downloads, "_describe_damage", lambda *_: "")
    place = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    place.parent.mkdir(parents=True)
    save(place, make_arrays())
    full = ("SqueezeNet1_1_Weights.IMAGENET1K_V1", "SqueezeNet1_1_Weights.DEFAULT")
    monkeypatch.chdir(place.parent)
    for name in ("DEFAULT", "IMAGENET1K_V1"):  # a file of the name of weights is none of them
        Path(name).mkdir()
    for chosen in (True, "true", "DEFAULT", "IMAGENET1K_V1", *full):
        assert choose_model(RunOptions(model=NAME, pretrained=chosen), FACTS).image_size == 224
        source: Any = choose_model(RunOptions(model=NAME, pretrained=chosen), FACTS).source
        assert (source().features[0].bias.detach().numpy() == make_arrays()["features.0.bias"]).all()
