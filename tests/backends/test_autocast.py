"""``autocast="bfloat16"``: torch's own, around the model's forward pass and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Extras
from layered_lr.data import Batches
from tests.support import resuming
from tests.support.convolutions import CLASSES, images, small
from tests.support.resuming import assert_same
from tests.support.stopping import stopped

BATCH, STEPS, RATE = 4, 6, 0.05
SPEC = ll.Spec(ll.AdamW(RATE, weight_decay=0.1), [ll.Group("0", lr_scale=0.1)], ll.StepLR(2, 0.5), clip_grad_norm=0.5)


def run(torch: Any, backend: str = "torch-eager", **options: Any) -> ll.Result:
    said = {"max_steps": STEPS, "batch_size": BATCH, "device": "cpu", "progress": False, **options}
    torch.manual_seed(0)
    return ll.run(SPEC, backend, small(torch, last=False), images(), **said)


def by_hand(torch: Any) -> tuple[list[float], float, dict[str, Any]]:
    """As torch's documentation has it: the forward pass alone is under autocast, the loss is float32."""
    torch.manual_seed(0)
    model = small(torch, last=False)()
    own, others = list(model[0].parameters()), list(model[1:].parameters())
    groups = [{"params": own, "lr": RATE * 0.1}, {"params": others, "lr": RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1, fused=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    data = Batches(ll.load_dataset(images()), BATCH, seed=0)
    losses = []
    for x, y in data.epoch(0):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            answer = model(torch.from_numpy(x))
        assert answer.dtype == torch.bfloat16
        loss = torch.nn.functional.cross_entropy(answer.float(), torch.from_numpy(y))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    _, _, x, y = images()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        right = (model(torch.from_numpy(x)).argmax(1).numpy() == y).mean()
    return losses, float(right), {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def test_it_is_torchs_own_loop_under_autocast_bitwise(torch: Any) -> None:
    result = run(torch, precision=ll.Precision(autocast="bfloat16"))
    losses, right, weights = by_hand(torch)
    assert result.losses.tolist() == losses and result.accuracies[-1] == right
    assert all(np.array_equal(result.weights[name], array) for name, array in weights.items())
    assert {array.dtype.name for array in result.weights.values()} == {"float32", "int64"}
    assert ll.Precision.of(result.options["precision"]) == ll.Precision(autocast="bfloat16")
    assert run(torch).losses.tolist() != losses  # the option does something


def test_compiled_it_computes_in_bfloat16_too(torch: Any) -> None:
    """Within bfloat16's 8 bits of the loop by hand, and further from float32's run than its 24 bits are.

    And torch 2.4 compiles with ``-ffast-math``: to load such code would make the process flush subnormals from then on.
    """
    torch._dynamo.reset()
    losses = run(torch, "torch-compile", precision=ll.Precision(autocast="bfloat16"), max_steps=2).losses
    np.testing.assert_allclose(losses, by_hand(torch)[0][:2], rtol=2**-7)
    assert np.abs(losses / run(torch, max_steps=2).losses - 1).max() > 2**-16
    assert torch.tensor([1e-40]).mul(1.0).item() > 0


def test_a_run_under_it_goes_on_bitwise(torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = resuming.options("torch-eager", precision=ll.Precision(autocast="bfloat16"))
    whole = ll.run(resuming.SPEC, **said)
    stopped(monkeypatch, tmp_path / "run", resuming.SPEC, 4, **said)
    result = ll.resume(tmp_path / "run", data=said["data"], trust=True)
    assert_same(result, whole)
    assert ll.Precision.of(result.options["precision"]) == ll.Precision(autocast="bfloat16")


def test_a_resumed_run_cannot_change_it(torch: Any, tmp_path: Path) -> None:
    said = resuming.options("torch-eager", epochs=1, precision=ll.Precision(autocast="bfloat16"))
    ll.run(resuming.SPEC, **said, checkpoints=tmp_path / "run")
    with pytest.raises(ll.SpecError, match="precision cannot be changed"):
        ll.resume(tmp_path / "run", data=said["data"], precision=ll.Precision(autocast=None), trust=True)
    other = resuming.options("oneflow-eager")
    with pytest.raises(ll.Unsupported, match="Use a torch backend"):
        ll.resume(
            tmp_path / "run", backend="oneflow-eager", model=other["model"], data=said["data"], epochs=2, trust=True
        )


def test_a_device_where_torch_might_leave_it_out_is_refused(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = load_backend("torch-eager", "cpu")
    model = backend.build(small(torch, last=False), CLASSES, 0.0, 0)
    plan = ll.resolve(SPEC, model, total_steps=STEPS)
    monkeypatch.setattr(backend, "device", torch.device("mps"))
    with pytest.raises(ll.Unsupported, match="not on 'mps'"):
        backend.open(plan, model, CLASSES, Extras(autocast="bfloat16"))


@pytest.mark.parametrize("backend", ["oneflow-eager", "oneflow-graph"])
def test_oneflow_refuses_it(backend: str) -> None:
    """OneFlow 0.9 would compute on a CPU as if nothing had been said."""
    with pytest.raises(ll.Unsupported, match="Use a torch backend"):
        ll.run(backend=backend, precision=ll.Precision(autocast="bfloat16"))


@pytest.mark.parametrize("value", ["float8", "half", "", True, 16], ids=repr)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"autocast=.*must be 'bfloat16' or 'float16'; leave it out"):
        ll.run(precision=ll.Precision(autocast=value))


def test_float64_would_make_it_do_nothing() -> None:
    with pytest.raises(ll.SpecError, match="Use one of the two"):
        ll.run(precision=ll.Precision(autocast="bfloat16", dtype="float64"))


def test_the_command_has_it(call: Any, torch: Any, tmp_path: Path) -> None:
    # On maps of one pixel torch 2.14 sometimes gives NaN for a depthwise convolution's gradient in bfloat16.
    larger = [array.repeat(4, 2).repeat(4, 3) if array.ndim == 4 else array for array in images()]
    np.savez(tmp_path / "d.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), larger, strict=True)))
    words = ["--max-steps", "1", "--batch-size", "2", "--no-progress", "--autocast", "bfloat16", "--device", "cpu"]
    done = call("run", "--backend", "torch-eager", "--data", str(tmp_path / "d.npz"), *words)
    assert done.code == 0 and "the same on" not in done.out


def test_compare_refuses_it_on_oneflow(call: Any, refused: Any, torch: Any, oneflow: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "half.toml"
    recipe.write_text('[run]\nprecision = "bfloat16"\n[optimizer]\ntype = "SGD"\nlr = 0.1\n')
    words = ["compare", "--recipe", str(recipe), "--backends", "oneflow-eager,torch-eager"]
    refused(call(*words), "Use a torch backend")
