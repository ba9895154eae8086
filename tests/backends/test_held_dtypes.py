"""A user's model trains in its own dtypes, bitwise as in torch's own loop, or is refused before it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.data import Batches, Dataset
from layered_lr.parity.recorder import prepare_task
from layered_lr.parity.task import Task
from layered_lr.training.options import RunOptions
from tests.support.isolation import value_of
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays
from tests.support.resuming import assert_same

GROUPS = [ll.Group("body", name="body", lr_scale=0.5)]
SPECS = {  # float16 holds no eps of 1e-8
    "SGD": ll.Spec(ll.SGD(0.1, momentum=0.9, weight_decay=1e-3), GROUPS, clip_grad_norm=1.0),
    "AdamW": ll.Spec(ll.AdamW(0.01, eps=1e-3), GROUPS),
}
DTYPES = ("bfloat16", "float16", "float64", "bfloat16 and float32", "float64 and bfloat16")


def build(torch: Any, dtypes: str) -> Callable[[], Any]:
    """Make what builds a model: its body has the first of the dtypes, its head the last."""
    first, last = (getattr(torch, dtypes.split(" and ")[place]) for place in (0, -1))

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body = torch.nn.Sequential(torch.nn.Linear(FEATURES, HIDDEN), torch.nn.BatchNorm1d(HIDDEN)).to(first)
            self.head = torch.nn.Linear(HIDDEN, CLASSES).to(last)

        def forward(self, images: Any) -> Any:
            return self.head(torch.tanh(self.body(images.flatten(1))).to(last))

    return Model


def train_by_hand(torch: Any, dtypes: str, kind: str) -> tuple[Any, list[float], Any]:
    """torch's own loop: the trained model, its losses, and torch's own moving average of it."""
    model = build(torch, dtypes)()
    members = [{"params": model.body.parameters()}, {"params": model.head.parameters()}]
    if kind == "SGD":
        members[0]["lr"] = 0.05
        optimizer = torch.optim.SGD(members, lr=0.1, momentum=0.9, weight_decay=1e-3)
    else:
        members[0]["lr"] = 0.005
        optimizer = torch.optim.AdamW(members, lr=0.01, eps=1e-3)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5), use_buffers=True
    )
    losses = []
    for epoch in range(2):
        for images, labels in Batches(Dataset("own", *arrays()), 8, 0).epoch(epoch):
            optimizer.zero_grad()
            given = torch.from_numpy(images).to(model.body[0].weight.dtype)
            loss = torch.nn.functional.cross_entropy(model(given), torch.from_numpy(labels))
            loss.backward()
            if kind == "SGD":
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            average.update_parameters(model)
            losses.append(loss.item())
    return model, losses, average.module


def options(model: Any, **other: Any) -> dict[str, Any]:
    usual = {"backend": "torch-eager", "model": model, "data": arrays(), "epochs": 2, "batch_size": 8}
    return {**usual, "progress": False, "device": "cpu", "ema_decay": 0.5, **other}


def assert_holds(weights: Any, state: Any) -> None:
    """The same names, dtypes and bits."""
    assert weights.keys() == state.keys()
    for name, tensor in state.items():
        assert weights[name].dtype.name == str(tensor.dtype).removeprefix("torch."), name
        np.testing.assert_array_equal(weights[name].astype(np.float64), tensor.double().numpy(), err_msg=name)


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("dtypes", DTYPES)
def test_it_trains_as_in_torchs_own_loop(torch: Any, dtypes: str, kind: str) -> None:
    result = ll.run(SPECS[kind], **options(build(torch, dtypes)))
    model, losses, average = train_by_hand(torch, dtypes, kind)
    assert result.losses.tolist() == losses
    assert_holds(result.weights, model.state_dict())
    counter = "body.1.num_batches_tracked"  # whole numbers are copied, not averaged
    assert_holds(result.ema_weights, {**average.state_dict(), counter: model.state_dict()[counter]})


@pytest.mark.parametrize("dtypes", DTYPES)
def test_it_is_saved_resumed_and_loaded_whole(torch: Any, tmp_path: Path, dtypes: str) -> None:
    make, spec = build(torch, dtypes), SPECS["AdamW"]
    whole = ll.run(spec, **options(make))
    ll.run(spec, **options(make, epochs=1), checkpoints=tmp_path / "run")
    assert_same(ll.resume(tmp_path / "run", epochs=2, model=make, data=arrays(), progress=False), whole)
    whole.save(tmp_path / "result.npz")
    read = ll.Result.load(tmp_path / "result.npz")
    assert_same(read, whole)
    assert {name: array.dtype for name, array in read.weights.items()} == {
        name: array.dtype for name, array in whole.weights.items()
    }


def test_weights_in_bfloat16_are_given_by_every_way(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor * 2 for name, tensor in build(torch, "bfloat16")().state_dict().items()}
    arrays_of = {name: tensor.float().numpy().astype(ml_dtypes.bfloat16) for name, tensor in state.items()}
    arrays_of["body.1.num_batches_tracked"] = np.array(0)
    torch.save(state, tmp_path / "w.pth")
    save_file(state, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **arrays_of)
    ways = [state, arrays_of, *(tmp_path / f"w.{kind}" for kind in ("pth", "safetensors", "npz"))]
    for own in ("bfloat16", "float32"):
        results = [
            ll.run(SPECS["SGD"], **options(build(torch, own), epochs=1), initial_weights=way).weights for way in ways
        ]
        for weights in results:
            assert_same_weights(weights, results[0])
        assert results[0]["head.weight"].dtype.name == own


def assert_same_weights(one: Any, other: Any) -> None:
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_a_loops_state_holds_bfloat16(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = build(torch, "bfloat16")()
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9))
    optimizer, scheduler = ll.compile(spec, model)
    model(torch.ones(4, FEATURES, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    ll.save_state(tmp_path / "state", model, optimizer, scheduler)
    saved = load_file(tmp_path / "state" / "weights.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())


def test_float64_is_made_of_float32_alone(torch: Any) -> None:
    with pytest.raises(ll.Unsupported, match=r"'body\.0\.weight' is bfloat16, and precision='float64' makes float64 "):
        ll.run(SPECS["SGD"], **options(build(torch, "bfloat16"), precision="float64"))
    with pytest.raises(ll.SpecError, match="with a model in float64"):
        ll.run(SPECS["SGD"], **options(build(torch, "float64"), precision="bfloat16"))


def answer_on_oneflow() -> list[str]:
    """What OneFlow says to models in other dtypes than float32; the dtype of the weights where one trains."""
    import oneflow
    import torch

    import layered_lr as ll
    from tests.support.models import CLASSES, FEATURES, arrays

    def make(framework, first, last):  # type: ignore[no-untyped-def]
        body = framework.nn.Sequential(framework.nn.Flatten(1), framework.nn.Linear(FEATURES, 4)).to(first)
        return framework.nn.Sequential(body, framework.nn.Linear(4, CLASSES).to(last))

    cases = [(torch, torch.bfloat16, torch.bfloat16), (oneflow, oneflow.float16, oneflow.float16)]
    cases += [(oneflow, oneflow.float32, oneflow.float64)]
    cases += [(framework, framework.float64, framework.float64) for framework in (torch, oneflow)]
    answers = []
    for backend in ("oneflow-eager", "oneflow-graph"):
        for case in cases:
            said = {"data": arrays(), "epochs": 1, "batch_size": 8, "progress": False, "device": "cpu"}
            try:
                result = ll.run(ll.Spec(ll.AdamW(0.1)), backend=backend, model=lambda case=case: make(*case), **said)
                answers.append(" ".join({array.dtype.name for array in result.weights.values()}))
            except ll.Unsupported as error:
                answers.append(str(error))
    return answers


def test_oneflow_holds_float64_and_refuses_the_others(oneflow: Any, torch: Any) -> None:
    answers = value_of(answer_on_oneflow)
    for narrow, half, mixed, translated, own in (answers[:5], answers[5:]):
        assert "'0.1.weight' is bfloat16, and OneFlow 0.9 trains only float32 and float64" in narrow
        assert "'0.1.weight' is float16, and OneFlow 0.9 trains only float32 and float64" in half
        assert "'0.1.weight' is float32 and '1.weight' is float64" in mixed and "precision='float64'" in mixed
        assert (translated, own) == ("float64", "float64")


@pytest.mark.parametrize(
    ("dtype", "mend"), [("bfloat16", "Make the model in float32"), ("float64", r"Give precision='float64'\.")]
)
def test_compare_says_in_what_it_judges(torch: Any, dtype: str, mend: str) -> None:
    chosen = RunOptions(backend="torch-eager", model=build(torch, dtype), data=arrays(), max_steps=1, batch_size=8)
    said = rf"'body\.0\.weight' is {dtype}, and this comparison judges in float32\. {mend}"
    with pytest.raises(ll.Unsupported, match=said):
        prepare_task(load_backend("torch-eager", "cpu"), Task(SPECS["SGD"], chosen, 1))
