"""``precision="float16"``: torch's own autocast and ``GradScaler``, and updates that overflow count nowhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.before.overfit import _probe_gradients
from layered_lr.data import Batches
from layered_lr.training.options import RunOptions
from layered_lr.training.prepare import prepare
from tests.support import resuming
from tests.support.convolutions import images, small
from tests.support.resuming import assert_same
from tests.support.stopping import stopped

BATCH, UPDATES, RATE, LIMIT, SCALE, GROWTH, DECAY = 4, 6, 0.05, 0.5, 2.0**24, 2, 0.9
GROUPS = [ll.Group("0", lr_scale=0.1)]
PRECISION = ll.Precision(autocast="float16", init_scale=SCALE, growth_interval=GROWTH)


def spec(optimizer: Any, **more: Any) -> ll.Spec:
    return ll.Spec(optimizer, GROUPS, ll.StepLR(2, 0.5), clip_grad_norm=LIMIT, **more)


def run(torch: Any, optimizer: Any, backend: str = "torch-eager", **options: Any) -> ll.Result:
    said = {"max_steps": UPDATES, "batch_size": BATCH, "device": "cpu", "progress": False, **options}
    torch.manual_seed(0)
    return ll.run(spec(optimizer), backend, small(torch, last=False), images(), **{"precision": PRECISION, **said})


def by_hand(torch: Any, make: Any, together: int = 1) -> dict[str, Any]:
    """As torch's documentation has it: scale, unscale, clip, step, update; schedules and averages follow updates."""
    torch.manual_seed(0)
    model = small(torch, last=False)()
    own, others = list(model[0].parameters()), list(model[1:].parameters())
    optimizer = make([{"params": own, "lr": RATE * 0.1}, {"params": others, "lr": RATE}])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY), use_buffers=True
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE, growth_interval=GROWTH)
    losses, rates, scales = [], [], []
    given = Batches(ll.load_dataset(images()), BATCH, seed=0).updates(together)
    while len(losses) < UPDATES:
        x, y, parts = next(given)
        optimizer.zero_grad()
        shares = []
        for one, wanted in zip(torch.from_numpy(x).chunk(parts), torch.from_numpy(y).chunk(parts), strict=True):
            with torch.autocast("cpu", torch.float16):
                answer = model(one)
            loss = torch.nn.functional.cross_entropy(answer.float(), wanted) / parts
            scaler.scale(loss).backward()
            shares.append(loss.detach())
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
        scaler.step(optimizer)
        before = scaler.get_scale()
        scaler.update()
        if scaler.get_scale() < before:
            scales.append(scaler.get_scale())
            continue
        losses.append(sum(shares[1:], shares[0]).item())
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
        average.update_parameters(model)
    return {
        "losses": losses,
        "rates": rates,
        "scales": scales,
        "weights": {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        "average": {name: tensor.numpy() for name, tensor in average.module.state_dict().items()},
    }


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_it_is_torchs_own_loop_with_a_scaler_bitwise(torch: Any, name: str, together: int) -> None:
    ours, made = {
        "AdamW": (
            ll.AdamW(RATE, weight_decay=0.1),
            lambda groups: torch.optim.AdamW(groups, weight_decay=0.1, fused=True),
        ),
        "SGD": (ll.SGD(RATE, weight_decay=0.1), lambda groups: torch.optim.SGD(groups, weight_decay=0.1, fused=True)),
    }[name]
    result = run(torch, ours, ema_decay=DECAY, accumulate_steps=together)
    known = by_hand(torch, made, together)
    assert result.losses.tolist() == known["losses"] and result.rates["0"].tolist() == known["rates"]
    found = [event for event in result.events if event["event"] == "overflow"]
    assert [event["loss_scale"] for event in found] == known["scales"]
    assert len(found) > 2 and {event["step"] for event in found[:2]} == {0}, "the first updates overflow"
    assert any(event["step"] > 0 for event in found), "the scale grows until it overflows again"
    del known["average"]["1.num_batches_tracked"]  # which is the model's here
    for arrays, mine in ((known["weights"], result.weights), (known["average"], result.ema_weights)):
        assert [key for key, array in arrays.items() if not np.array_equal(mine[key], array)] == []
    assert len(result.grad_norms) == UPDATES and np.isfinite(result.grad_norms).all()


@pytest.mark.parametrize("word", ["fp16", "float16"])
def test_a_word_asks_for_it(word: str) -> None:
    assert ll.Precision.of(word) == ll.Precision(autocast="float16") == ll.Precision(autocast=word)  # type: ignore[arg-type]


def test_compiled_it_finds_a_scale_too(torch: Any) -> None:
    torch._dynamo.reset()
    result = run(torch, ll.SGD(RATE), "torch-compile", max_steps=2)
    assert len(result.losses) == 2 and any(event["event"] == "overflow" for event in result.events)


def test_callbacks_and_the_folder_are_told(torch: Any, tmp_path: Path) -> None:
    class Listens(ll.Callback):
        def __init__(self) -> None:
            self.heard: list[tuple[int, float]] = []

        def on_overflow(self, event: Any) -> None:
            self.heard.append((event.step, event.loss_scale))

    listens = Listens()
    result = run(torch, ll.SGD(RATE), callbacks=[listens], checkpoints=tmp_path / "run")
    told = [event for event in result.events if event["event"] == "overflow"]
    assert listens.heard and listens.heard == [(event["step"], event["loss_scale"]) for event in told]
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["event"] == "overflow"] == told


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_run_goes_on_bitwise(torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, action: str) -> None:
    """The scale, its counter and the place in the data are in the checkpoint."""
    said = resuming.options("torch-eager", precision=PRECISION, divergence=action)
    whole = ll.run(resuming.SPEC, **said)
    stopped(monkeypatch, tmp_path / "run", resuming.SPEC, 5, **said)
    result = ll.resume(tmp_path / "run", data=said["data"], trust=True)
    assert_same(result, whole)
    assert result.events == whole.events and [event["event"] for event in whole.events].count("overflow") > 3


def test_phases_hand_the_scale_on(torch: Any) -> None:
    phases = [ll.Phase(until=2, frozen=["0"]), ll.Phase()]
    settings = spec(ll.SGD(RATE), phases=phases)
    torch.manual_seed(0)
    said = {"max_steps": UPDATES, "batch_size": BATCH, "device": "cpu", "progress": False}
    calm = ll.Precision(autocast="float16", init_scale=SCALE)
    result = ll.run(settings, "torch-eager", small(torch, last=False), images(), precision=calm, **said)
    steps = [event["step"] for event in result.events if event["event"] == "overflow"]
    assert len(steps) > 2 and steps.count(2) <= 3, "the second phase does not begin with the first scale again"
    assert len(result.losses) == UPDATES


def test_a_tiny_epoch_may_overflow_more_often_than_it_has_batches(torch: Any) -> None:
    result = run(torch, ll.SGD(RATE), batch_size=24, max_steps=2)
    assert [event["event"] for event in result.events].count("overflow") > 1 and len(result.losses) == 2


def test_a_model_that_answers_nan_ends_the_run(torch: Any) -> None:
    class Broken(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Linear(192, 3)

        def forward(self, x: Any) -> Any:
            return self.last(x.flatten(1)) * (float("nan") if self.training else 1.0)

    said = {"max_steps": 2, "batch_size": BATCH, "device": "cpu", "progress": False}
    with pytest.raises(ll.TrainingDiverged, match="overflow in float16, or are NaN"):
        ll.run(ll.Spec(ll.SGD(0.1)), "torch-eager", Broken, images(), precision="fp16", **said)


@pytest.mark.parametrize("backend", ["oneflow-eager", "oneflow-graph"])
def test_oneflow_refuses_it(backend: str) -> None:
    with pytest.raises(ll.Unsupported, match="Use a torch backend"):
        ll.run(backend=backend, precision="fp16")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_scale": 2.0}, "scaled under autocast to 'float16' alone"),
        ({"autocast": "bf16", "growth_interval": 5}, "scaled under autocast to 'float16' alone"),
        ({"autocast": "fp16", "init_scale": 0}, "above 0"),
        ({"autocast": "fp16", "init_scale": float("inf")}, "above 0"),
        ({"autocast": "fp16", "growth_interval": 0}, "whole number >= 1"),
        ({"autocast": "fp16", "dtype": "float64"}, "Use one of the two"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        ll.run(precision=settings)


def test_a_model_in_float16_is_refused(torch: Any) -> None:
    def half() -> Any:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3)).half()

    with pytest.raises(ll.SpecError, match="cannot be unscaled"):
        ll.run(ll.Spec(ll.SGD(0.1)), model=half, data=images(), batch_size=2, precision="fp16", progress=False)


def test_compare_does_not_certify_it() -> None:
    with pytest.raises(ll.Unsupported, match="is not certified"):
        ll.compare(ll.Spec(ll.SGD(0.1)), ["torch-eager", "torch-compile"], precision="float16")


def test_the_command_has_it(call: Any, torch: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), images(), strict=True)))
    words = ["--data", str(tmp_path / "d.npz"), "--max-steps", "1", "--batch-size", "2", "--no-progress"]
    words += ["--autocast", "fp16", "--init-scale", "1024", "--growth-interval", "3", "--device", "cpu"]
    done = call("run", "--backend", "torch-eager", *words)
    assert done.code == 0 and "the same on" not in done.out


def test_overfit_sees_the_gradients_whatever_the_first_scale(torch: Any) -> None:
    """Where the first update overflows, none would be made, and every gradient would look like 0."""
    high = ll.Precision(autocast="float16", init_scale=2.0**30)
    given = RunOptions(model=small(torch, last=False), data=images(), batch_size=BATCH, device="cpu", precision=high)
    gradients = _probe_gradients(prepare(ll.Spec(ll.SGD(0.05)), given), checks_answer=True)
    assert gradients and all(np.abs(gradient).max() > 0 for gradient in gradients.values())
