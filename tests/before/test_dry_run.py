"""A dry run makes one update, evaluates one batch, writes and reads a checkpoint, and keeps no file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import arrays, mlp

SPEC = ll.Spec(ll.SGD(0.1), [ll.Group("1", lr_scale=0.5)], ll.CosineDecay())


def tried(**given: Any) -> ll.Result:
    torch = pytest.importorskip("torch")
    said = {"model": mlp(torch), "data": arrays(), "batch_size": 8, "epochs": 2, "progress": False, "dry_run": True}
    return ll.run(given.pop("spec", SPEC), **{**said, **given})


def test_it_makes_the_first_update_of_the_run_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tried(dry_run=False)
    result = tried(checkpoints=tmp_path / "run", save=tmp_path / "result.npz", log=f"csv:{tmp_path / 'log.csv'}")
    assert result.losses.tolist() == whole.losses[:1].tolist()
    assert result.rates["1"].tolist() == whole.rates["1"][:1].tolist()
    assert result.plan.total_steps == 10 and len(result.accuracies) == 1
    assert result.accuracies[0] * 8 == round(result.accuracies[0] * 8)  # of one batch of 8
    assert not list(tmp_path.iterdir())
    said = capsys.readouterr().err
    assert "1 of 10 updates" in said and "8 test images evaluated" in said and "written and read again" in said


def test_it_calls_the_callbacks(tmp_path: Path) -> None:
    heard = []

    class Listener(ll.Callback):
        def on_update(self, event: Any) -> None:
            heard.append(event.step)

        def on_checkpoint(self, event: Any) -> None:
            heard.append("checkpoint")

    tried(callbacks=[Listener()], checkpoints=tmp_path / "run")
    assert heard == ["checkpoint", 0, "checkpoint"]  # a run writes one before its first update


def test_a_run_that_could_not_begin_is_refused(tmp_path: Path) -> None:
    tried(dry_run=False, checkpoints=tmp_path / "run", max_steps=1)
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(ll.CheckpointError, match="holds a run already"):
        tried(checkpoints=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ll.CheckpointError, match="no folder to write to"):
        tried(checkpoints=tmp_path / "file" / "run")
    with pytest.raises(ll.SpecError, match="dry_run"):
        tried(dry_run="yes")


def test_a_state_that_no_file_holds_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a folder the run would not write it, and the dry run says that alone; with one it is refused."""
    torch = pytest.importorskip("torch")

    class Odd(torch.nn.Linear):  # type: ignore[misc, name-defined]
        def get_extra_state(self) -> Any:
            return threading.get_ident

        def set_extra_state(self, state: Any) -> None:
            pass

    def build() -> Any:
        return torch.nn.Sequential(torch.nn.Flatten(1), Odd(12, 3))

    spec = ll.Spec(ll.SGD(0.1))
    assert np.isfinite(tried(model=build, spec=spec).losses).all()
    with pytest.raises(ll.Unsupported, match="extra_state"):
        tried(model=build, spec=spec, checkpoints=tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["torch-eager", "oneflow-graph"])
def test_it_makes_an_update_of_each_size(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    if backend.startswith("oneflow"):
        pytest.importorskip("oneflow")
    given = {"data": images_of(12), "sizes": [8, 17, 12, 9], "accumulate_steps": 2, "max_steps": 1}
    given |= {"backend": backend, "model": lambda: pooled(torch), "device": "cpu", "initialise": "torch"}
    result = tried(spec=ll.Spec(ll.AdamW(0.1)), **given)
    said = capsys.readouterr().err
    assert len(result.losses) == 1 and "1 of 1 updates" in said
    assert said.count("made too, loss") == 3
    assert sum(f"on images of {size}x{size}" in said for size in (8, 17, 12, 9)) == 3
    whole = tried(spec=ll.Spec(ll.AdamW(0.1)), dry_run=False, **given)
    assert result.losses.tolist() == whole.losses.tolist()
    assert all(np.array_equal(result.weights[name], array) for name, array in whole.weights.items())


def test_a_size_that_fails_in_training_alone_is_named(tmp_path: Path) -> None:
    """In training a batch normalisation refuses maps of one number; the run itself says it in the same words."""
    torch = pytest.importorskip("torch")
    given = {"data": images_of(12), "sizes": [9, 2], "batch_size": 1, "model": lambda: pooled(torch, 2)}
    spec = ll.Spec(ll.SGD(0.1))
    for dry in (True, False):
        with pytest.raises(ll.SpecError, match=r"on images of shape \(1, 3, 2, 2\) failed: .* value"):
            tried(spec=spec, dry_run=dry, **given)


def images_of(side: int) -> Any:
    """Images, labels, test images, test labels."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, side, side, 3), dtype=np.uint8)
    return pixels[:16], np.arange(16) % 3, pixels[16:], np.arange(4) % 3


def pooled(torch: Any, kernel: int = 3) -> Any:
    """A network that takes images of any size, down to its kernel."""
    nn = torch.nn
    convolution = nn.Conv2d(3, 4, kernel)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def test_the_command_says_what_it_did(call: Any, tmp_path: Path, tiny: tuple[str, ...]) -> None:
    answer = call("run", *tiny, "--dry-run", "--save", "result.npz", "--checkpoint-dir", "run")
    assert answer.code == 0 and "dry run: 1 of" in answer.err and "the same on" not in answer.out
    assert not (tmp_path / "result.npz").exists() and not (tmp_path / "run").exists()
