"""A loss or a gradient that is not finite: the run stops, leaves the batch out, or goes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, load_dataset
from layered_lr.state import read_state
from layered_lr.training.loop import Loop
from layered_lr.training.measurements import Measurements
from layered_lr.watching.run_record import read_record
from tests.support import resuming
from tests.support.models import arrays
from tests.support.resuming import SPEC, options
from tests.support.stopping import StopAfter, sigterm_after

PLAIN = replace(SPEC, groups=[ll.Group("head", lr_scale=2.0)], schedule=ll.ExponentialLR(gamma=0.9))
BAD = 12  # the place of the image that makes everything infinite


def poisoned() -> tuple[Any, ...]:
    x_train, y_train, x_test, y_test = arrays()
    x_train = x_train.copy()
    x_train[BAD] = 3e38
    return x_train, y_train, x_test, y_test


def said(backend: str, **other: Any) -> dict[str, Any]:
    return options(backend, **{"data": poisoned(), "epochs": 2, "accumulate_steps": 1, **other})


def test_skip_leaves_the_batch_out_and_nothing_else(backend: Any) -> None:
    result = ll.run(PLAIN, **said(backend.name, divergence="skip"))
    assert len(result.losses) == 10
    assert [event["event"] for event in result.events] == ["skipped"] * len(result.events)
    assert len(result.events) in (2, 3)  # once an epoch, and the updates that are made up for reach a third one
    assert np.isfinite(result.losses).all()
    assert all(np.isfinite(weight).all() for weight in result.weights.values())
    np.testing.assert_allclose(result.rates["rest"], 0.01 * 0.9 ** np.arange(10), rtol=1e-6)


def test_a_skipped_update_leaves_no_trace(torch: Any) -> None:
    """The weights after it are those before it, moments, averages and running statistics included."""
    result = ll.run(PLAIN, **said("torch-eager", divergence="skip", epochs=1))
    first = result.events[0]["step"]
    before = ll.run(PLAIN, **said("torch-eager", epochs=None, max_steps=first)) if first else None
    if before is not None:
        np.testing.assert_array_equal(result.losses[:first], before.losses)
    batches = Batches(load_dataset(poisoned()), 8, seed=0)
    kept = [batch for batch in [*batches.epoch(0), *batches.epoch(1)] if np.isfinite(batch[0]).all()]
    kept = [batch for batch in kept if np.abs(batch[0]).max() < 1e38][:5]
    np.testing.assert_array_equal(by_hand(torch, kept), result.losses)


def by_hand(torch: Any, batches: list[Any]) -> list[float]:
    model = resuming.torch_net()
    model.load_state_dict({name: torch.tensor(array) for name, array in resuming.start().items()})
    optimizer, scheduler = ll.compile(PLAIN, model, total_steps=5, steps_per_epoch=5)
    losses = []
    for images, labels in batches:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return losses


def test_skipped_updates_count_where_asked(torch: Any) -> None:
    result = ll.run(PLAIN, **said("torch-eager", divergence=ll.Divergence("skip", skip_advances=True)))
    assert len(result.losses) == 10
    assert np.isnan(result.losses).sum() == 2
    np.testing.assert_allclose(result.rates["rest"], 0.01 * 0.9 ** np.arange(10), rtol=1e-12)
    assert all(np.isfinite(weight).all() for weight in result.weights.values())


def test_stop_is_an_error_and_keeps_the_last_checkpoint(torch: Any, tmp_path: Path) -> None:
    with pytest.raises(ll.TrainingDiverged, match="the loss is"):
        ll.run(PLAIN, **said("torch-eager", checkpoints=ll.Checkpoints(tmp_path / "run", every=1)))
    assert (tmp_path / "run" / "checkpoints").is_dir()
    assert '"diverged"' in (tmp_path / "run" / "events.jsonl").read_text()


def test_rollback_goes_back_at_lower_rates(backend: Any, tmp_path: Path) -> None:
    """A loss that overflows at high rates and does not at lower ones."""
    spec = ll.Spec(ll.SGD(1e18), [ll.Group("head", lr_scale=0.5)])
    result = ll.run(
        spec,
        **options(
            backend.name,
            epochs=2,
            accumulate_steps=1,
            divergence=ll.Divergence("rollback", rollback_factor=1e-10),
            checkpoints=ll.Checkpoints(tmp_path / "run", every="100 steps"),
        ),
    )
    (event, *_) = result.events
    assert (event["event"], event["to"]) == ("rolled back", 0)
    factor = result.events[-1]["rate_factor"]
    np.testing.assert_allclose(result.rates["head"], 0.5e18 * factor, rtol=1e-6)
    assert max(result.largest_rate_differences().values()) < 1e-6
    assert len(result.losses) == 10
    again = ll.resume(tmp_path / "run", epochs=3, data=arrays(), trust=True)
    np.testing.assert_allclose(again.rates["head"], 0.5e18 * factor, rtol=1e-6)


def test_rollback_gives_up_where_lower_rates_do_not_help(torch: Any) -> None:
    with pytest.raises(ll.TrainingDiverged, match="10 rollbacks"):
        ll.run(PLAIN, **said("torch-eager", divergence="rollback"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "ignore"},
        {"rollback_factor": 1.0},
        {"rollback_factor": 0.0},
        {"skip_advances": 2},
        {"every": "3 days"},
        {"every": 0},
        {"every": "0.5 steps"},
        {"keep": 0},
        {"keep_best": "yes"},
        {"folder": 3},
    ],
    ids=lambda wrong: "-".join(f"{name}-{value}" for name, value in wrong.items()),
)
def test_wrong_input(wrong: dict[str, Any]) -> None:
    """The value classes refuse it, and so does a table of their fields, as a recipe has it."""
    ((name, _),) = wrong.items()
    is_divergence = name in ("action", "rollback_factor", "skip_advances")
    with pytest.raises(ll.SpecError, match=name):
        (ll.Divergence if is_divergence else ll.Checkpoints)(**wrong)
    with pytest.raises(ll.SpecError, match=name):
        ll.run(SPEC, **options("torch-eager"), **{"divergence" if is_divergence else "checkpoints": wrong})


def diverging(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the updates ``steps`` look as if their loss were NaN, the first time each is made."""
    left = set(steps)
    find_fault = Measurements.find_fault

    def find(self: Measurements, step: int) -> str:
        if step in left:
            left.remove(step)
            return "the loss is nan"
        return find_fault(self, step)

    monkeypatch.setattr(Measurements, "find_fault", find)


def rows(folder: Path) -> Any:
    return np.genfromtxt(folder / "metrics.csv", delimiter=",", skip_header=1)


def written(tmp_path: Path, **other: Any) -> dict[str, Any]:
    """Two epochs of five updates."""
    return options("torch-eager", **{"epochs": 2, "accumulate_steps": 1, "checkpoints": tmp_path / "run", **other})


@pytest.mark.parametrize("at", [4, 9])
def test_a_skipped_update_that_counts_may_end_an_epoch_or_the_run(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    diverging(monkeypatch, at)
    result = ll.run(SPEC, **written(tmp_path, divergence=ll.Divergence("skip", skip_advances=True)))
    assert np.flatnonzero(np.isnan(result.losses)).tolist() == [at]
    assert len(result.accuracies) == len(result.ema_accuracies) == 2
    assert (tmp_path / "run" / "checkpoints" / "step-00000010").is_dir()
    np.testing.assert_array_equal(rows(tmp_path / "run")[:, 1], result.losses)


def test_a_skipped_update_that_counts_may_begin_a_phase(
    backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With another optimizer: what it keeps begins at the update after it."""
    spec = replace(PLAIN, phases=[ll.Phase(3, frozen="body"), ll.Phase(optimizer=ll.SGD(0.1, momentum=0.9))])
    said = options(backend.name, epochs=2, accumulate_steps=1, divergence=ll.Divergence("skip", skip_advances=True))
    diverging(monkeypatch, 3)
    result = ll.run(spec, **said, checkpoints=ll.Checkpoints(tmp_path / "run", every=4))
    assert np.flatnonzero(np.isnan(result.losses)).tolist() == [3]
    states = [read_state(tmp_path / "run" / "checkpoints" / f"step-{step:08d}") for step in (4, 8)]
    assert [state.optimizer for state in states] == ["SGD", "SGD"]
    assert not any(states[0].slots.values())
    assert "momentum_buffer" in states[1].slots["body.weight"]


def test_a_rolled_back_run_writes_its_metrics_anew_and_remembers_it_when_resumed(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging(monkeypatch, 7)
    said = written(tmp_path, divergence="rollback", checkpoints=ll.Checkpoints(tmp_path / "run", every=3))
    result = ll.run(PLAIN, **said)
    assert [(event["event"], event["to"]) for event in result.events] == [("rolled back", 6)]
    np.testing.assert_array_equal(rows(tmp_path / "run")[:, 1], result.losses)
    np.testing.assert_array_equal(rows(tmp_path / "run")[:, 2], result.rates["head"])
    again = ll.resume(tmp_path / "run", epochs=3, data=arrays(), trust=True)
    assert again.events == result.events


def test_no_checkpoint_is_written_of_what_is_not_finite(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Loop) -> Any:
        state = state_of(self)
        return replace(state, weights={**state.weights, "body.bias": np.full(8, np.inf)}) if self.step == 6 else state

    state_of = Loop.export_state
    monkeypatch.setattr(Loop, "export_state", broken)
    ll.run(
        PLAIN,
        **written(
            tmp_path, checkpoints=ll.Checkpoints(tmp_path / "run", every=3, keep=1, keep_best=False), max_steps=8
        ),
    )
    assert "after 6 updates weight 'body.bias' holds NaN or infinity. No checkpoint" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000008"]


def test_a_rollback_that_does_not_help_goes_one_checkpoint_further_back(torch: Any, tmp_path: Path) -> None:
    """The update that blows the weights up has a finite loss: the checkpoint behind it holds them."""
    spec = ll.Spec(ll.SGD(0.01), phases=[ll.Phase(4), ll.Phase(optimizer=ll.SGD(1e30))])
    said = written(
        tmp_path,
        checkpoints=ll.Checkpoints(tmp_path / "run", every=1),
        divergence=ll.Divergence("rollback", rollback_factor=1e-30),
    )
    result = ll.run(spec, **{**said, "ema_decay": None})
    assert [event["to"] for event in result.events] == [5, 4]
    assert len(result.losses) == 10 and np.isfinite(result.losses).all()
    np.testing.assert_array_equal(rows(tmp_path / "run")[:, 1], result.losses)


def test_a_rollback_to_the_middle_of_an_epoch_forgets_what_was_measured_there(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A callback ended the run after update 7, and it went on, twice: so the state to go back to is that of a file."""

    class Spoil(ll.Callback):
        left = 2

        def on_batch(self, event: Any) -> None:
            if event.step == 9 and self.left:
                self.left -= 1
                event.images = event.images * np.float32(np.nan)

    given = {**written(tmp_path), "ema_decay": None, "accumulate_steps": 1, "divergence": "rollback", "epochs": 3}
    ll.run(SPEC, **given, callbacks=[StopAfter(3)])
    ll.resume(tmp_path / "run", data=arrays(), trust=True, callbacks=[StopAfter(7)])
    with sigterm_after(monkeypatch, 10):
        ll.resume(tmp_path / "run", data=arrays(), trust=True)
    result = ll.resume(tmp_path / "run", data=arrays(), trust=True, callbacks=[Spoil()])
    assert [event.get("to") for event in result.events][-1] == 7
    assert len(result.losses) == 15 and len(result.accuracies) == 3
    assert list(read_record(tmp_path / "run").accuracies.values()) == result.accuracies.tolist()
