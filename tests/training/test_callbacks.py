"""Callbacks are told of every event in its order, may stop and change a run, and cannot break it in silence."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.session import Session, StepOutcome
from layered_lr.state import read_state
from tests.support import resuming
from tests.support.image_folders import make_folder
from tests.support.models import arrays
from tests.support.resuming import options
from tests.support.stopping import StopAfter

PLAIN = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("head", lr_scale=2.0)], ll.ExponentialLR(gamma=0.9))


def said(backend: str = "torch-eager", **other: Any) -> dict[str, Any]:
    """Two epochs of five updates, without accumulation."""
    return options(backend, **{"epochs": 2, "accumulate_steps": 1, "ema_decay": None, **other})


class Listener(ll.Callback):
    """Notes the name of each event, with the updates made so far."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def _note(self, name: str, event: Any) -> None:
        self.heard.append((name, event.run.step))

    def on_begin(self, event: Any) -> None:
        self._note("begin", event)

    def on_batch(self, event: Any) -> None:
        self._note("batch", event)

    def on_update(self, event: Any) -> None:
        self._note("update", event)

    def on_evaluation(self, event: Any) -> None:
        self._note("evaluation", event)

    def on_epoch(self, event: Any) -> None:
        self._note("epoch", event)

    def on_checkpoint(self, event: Any) -> None:
        self._note("checkpoint", event)

    def on_divergence(self, event: Any) -> None:
        self._note(f"divergence: {event.action}", event)

    def on_overflow(self, event: Any) -> None:
        self._note("overflow", event)

    def on_end(self, event: Any) -> None:
        self._note(f"end: {type(event.error).__name__}", event)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.heard if name not in ("batch", "update")]


def test_the_events_come_in_their_order(torch: Any, tmp_path: Path) -> None:
    listener = Listener()
    ll.run(PLAIN, **said(epochs=1, checkpoints=tmp_path / "run"), callbacks=[listener])
    updates = [(name, step + (name == "update")) for step in range(5) for name in ("batch", "update")]
    ends = [("evaluation", 5), ("epoch", 5), ("checkpoint", 5), ("end: NoneType", 5)]
    assert listener.heard == [("checkpoint", 0), ("begin", 0), *updates, *ends]


def test_callbacks_are_called_in_the_order_in_which_they_are_given(torch: Any) -> None:
    heard: list[str] = []

    class Named(ll.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_epoch(self, event: Any) -> None:
            heard.append(self.name)

    ll.run(PLAIN, **said(epochs=1), callbacks=[Named("first"), Named("second")])
    assert heard == ["first", "second"]


def test_a_run_with_callbacks_that_only_look_is_bitwise_the_run_without(backend: Any) -> None:
    class Looks(ll.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []
            self.rates: list[Any] = []
            self.norms: list[Any] = []

        def on_update(self, event: Any) -> None:
            self.losses.append(float(event.loss))
            self.rates.append(np.asarray(event.rates))
            self.norms.append(event.grad_norms)

    spec = ll.Spec(ll.SGD(0.05, momentum=0.9), PLAIN.groups, PLAIN.schedule, clip_grad_norm=1.0)
    looks = Looks()
    watched = ll.run(spec, **said(backend.name), callbacks=[looks])
    alone = ll.run(spec, **said(backend.name))
    np.testing.assert_array_equal(watched.losses, alone.losses)
    for name, weight in alone.weights.items():
        np.testing.assert_array_equal(watched.weights[name], weight)
    assert looks.losses == alone.losses.tolist()
    np.testing.assert_array_equal(np.array(looks.rates).T, list(alone.rates.values()))
    with pytest.raises(ll.LayeredLRError, match="the run has ended"):
        looks.norms[0].numpy()  # which nobody has read while it went on


def test_nothing_is_waited_for_before_it_is_read(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses come in blocks, also where a callback listens to every update and reads none."""
    waits: list[int] = []
    losses = Session.losses

    def counted(self: Session, outcomes: Any) -> Any:
        waits.append(len(outcomes))
        return losses(self, outcomes)

    class Counts(ll.Callback):
        kept: list[Any] = []  # noqa: RUF012

        def on_update(self, event: Any) -> None:
            self.kept.append((event.loss, event.rates, event.grad_norms))
            assert len(event.run.losses) <= event.run.step

    monkeypatch.setattr(Session, "losses", counted)
    ll.run(PLAIN, **said(epochs=1), callbacks=[Counts()])
    watched, waits[:] = [*waits], []
    ll.run(PLAIN, **said(epochs=1))
    assert watched == waits and sum(waits) == 5


def test_a_callback_stops_the_run_which_then_goes_on_as_if_it_had_not(torch: Any, tmp_path: Path) -> None:
    listener = Listener()
    folder = tmp_path / "run"
    stopped = ll.run(PLAIN, **said(checkpoints=folder), callbacks=[StopAfter(7, "seven are enough"), listener])
    assert len(stopped.losses) == 7 and len(stopped.accuracies) == 2
    assert stopped.events == ({"event": "stopped", "step": 7, "why": "seven are enough"},)
    assert listener.names[-4:] == ["evaluation", "epoch", "checkpoint", "end: NoneType"]
    whole = ll.run(PLAIN, **said())
    again = ll.resume(folder, data=arrays(), trust=True)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.accuracies, whole.accuracies)
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)


def test_a_run_that_is_stopped_before_its_first_update_has_a_result(torch: Any, tmp_path: Path) -> None:
    class Never(ll.Callback):
        def on_begin(self, event: Any) -> None:
            event.run.stop("not today")

    result = ll.run(PLAIN, **said(checkpoints=tmp_path / "run"), callbacks=[Never()])
    assert len(result.losses) == 0 and "before its first update" in str(result)
    assert len(ll.resume(tmp_path / "run", data=arrays(), trust=True).losses) == 10


def test_a_callback_asks_for_a_checkpoint(torch: Any, tmp_path: Path) -> None:
    class Asks(ll.Callback):
        def __init__(self) -> None:
            self.written: list[Path] = []

        def on_update(self, event: Any) -> None:
            if event.step == 2:
                event.run.checkpoint()

        def on_checkpoint(self, event: Any) -> None:
            assert read_state(event.path).step == event.run.step
            self.written.append(event.path)

    asks = Asks()
    ll.run(PLAIN, **said(epochs=1, checkpoints=ll.Checkpoints(tmp_path / "run", every="100 epochs")), callbacks=[asks])
    assert [path.name for path in asks.written] == ["step-00000000", "step-00000003", "step-00000005"]
    with pytest.raises(
        ll.CallbackError, match=r"Asks raised SpecError in on_update: checkpoint: the run has no folder"
    ):
        ll.run(PLAIN, **said(epochs=1), callbacks=[asks])


def test_logged_numbers_are_kept_everywhere_and_go_on(torch: Any, tmp_path: Path) -> None:
    class Logs(ll.Callback):
        def __init__(self, stop: int | None = None) -> None:
            self.stop = stop

        def on_update(self, event: Any) -> None:
            if event.step % 2:
                event.run.log({"val/best": event.step}, halved=np.float32(event.step / 2))
            if event.step == self.stop:
                event.run.stop()

    folder = tmp_path / "run"
    ll.run(PLAIN, **said(checkpoints=folder), callbacks=[Logs(stop=6)])
    result = ll.resume(folder, data=arrays(), callbacks=[Logs()], trust=True)
    assert result.logged["val/best"].tolist() == [[step + 1, step] for step in (1, 3, 5, 7, 9)]
    assert result.logged["halved"].tolist() == [[step + 1, step / 2] for step in (1, 3, 5, 7, 9)]
    with (folder / "logged.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["step", "name", "value"]
    assert sorted(rows) == sorted(
        [str(int(s)), name, repr(v)] for name, t in result.logged.items() for s, v in t.tolist()
    )
    result.save(tmp_path / "result.npz")
    loaded = ll.Result.load(tmp_path / "result.npz").logged
    assert {name: rows.tolist() for name, rows in loaded.items()} == {n: r.tolist() for n, r in result.logged.items()}


def test_what_was_logged_in_updates_that_a_rollback_undoes_is_gone(torch: Any, tmp_path: Path) -> None:
    class Logs(ll.Callback):
        def on_update(self, event: Any) -> None:
            event.run.log(step=event.step)

    spec = ll.Spec(ll.SGD(0.01), phases=[ll.Phase(6), ll.Phase(optimizer=ll.SGD(1e30))])
    listener = Listener()
    asked = said(
        checkpoints=ll.Checkpoints(tmp_path / "run", every=4),
        divergence=ll.Divergence("rollback", rollback_factor=1e-30),
    )
    result = ll.run(spec, **asked, callbacks=[Logs(), listener])
    assert [event["event"] for event in result.events] == ["rolled back"]
    assert listener.names.count("divergence: rollback") == 1
    assert result.logged["step"].tolist() == [[step + 1, step] for step in range(10)]
    lines = (tmp_path / "run" / "logged.csv").read_text().splitlines()
    assert lines[1:] == [f"{step + 1},step,{step}.0" for step in range(10)]


def test_a_batch_that_is_skipped_is_as_if_it_were_not_in_the_data(torch: Any) -> None:
    seen: list[Any] = []

    class Sees(ll.Callback):
        def on_batch(self, event: Any) -> None:
            seen.append((event.images, event.labels))

    class Skips(ll.Callback):
        def on_batch(self, event: Any) -> None:
            if np.array_equal(event.images, seen[0][0]):
                event.skip("a bad batch")

    ll.run(PLAIN, **said(epochs=1), callbacks=[Sees()])
    result = ll.run(PLAIN, **said(epochs=None, max_steps=4), callbacks=[Skips()])
    assert result.events == ({"event": "left out", "step": 0, "why": "a bad batch"},)
    model = resuming.torch_net()
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in resuming.start().items()})
    head = {"params": model.head.parameters(), "lr": 0.1}
    rest = {"params": [*model.body.parameters(), *model.norm.parameters()], "lr": 0.05}
    optimizer = torch.optim.SGD([head, rest], momentum=0.9)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    losses = []
    for images, labels in seen[1:]:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    np.testing.assert_allclose(result.losses, losses, rtol=1e-5)  # torch's fused update rounds otherwise
    np.testing.assert_allclose(result.weights["head.weight"], model.head.weight.detach(), rtol=1e-4, atol=1e-6)


def test_a_batch_may_be_changed(torch: Any) -> None:
    class Blanks(ll.Callback):
        def on_batch(self, event: Any) -> None:
            event.images = np.zeros_like(event.images)

    images = arrays()[0]
    blank = ll.run(PLAIN, **said(epochs=1), callbacks=[Blanks()])
    assert not np.array_equal(blank.losses, ll.run(PLAIN, **said(epochs=1)).losses)
    assert images.any(), "the data are as they were"


def run_with_batch(name: str, change: Any) -> Any:
    """A run of which a callback changes the images or the labels of each batch."""

    class Changes(ll.Callback):
        def on_batch(self, event: Any) -> None:
            setattr(event, name, change(getattr(event, name)))

    return ll.run(PLAIN, **said(epochs=1), callbacks=[Changes()])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "images",
            lambda images: images[:, :1],
            r"float32 of shape \(8, 1, .* in event.images; must be float32 of shape",
        ),
        ("images", lambda images: images[..., :1], "callback Changes: on_batch has put float32 of shape"),
        ("images", lambda images: np.concatenate([images, images], 2), "as the images of the batch are"),
        ("images", lambda images: images.astype(np.uint8), r"uint8 of shape \(8, 3"),
        ("images", lambda images: images.tolist(), "a list in event.images; must be a NumPy array"),
        ("labels", lambda labels: labels.astype(float), r"float64 of shape \(8,\) in event.labels; must be int64"),
        ("labels", lambda labels: labels > 0, r"bool of shape \(8,\) in event.labels; must be int64"),
        ("labels", lambda labels: labels.tolist(), "a list in event.labels; must be a NumPy array"),
    ],
)
def test_a_batch_of_another_kind_is_refused(torch: Any, name: str, change: Any, words: str) -> None:
    with pytest.raises(ll.DataError, match=words):
        run_with_batch(name, change)


def test_labels_of_fewer_bits_are_labels(torch: Any) -> None:
    narrow = run_with_batch("labels", lambda labels: labels.astype(np.int16))
    assert np.array_equal(narrow.losses, run_with_batch("labels", lambda labels: labels).losses)


def test_a_run_of_which_every_batch_is_skipped_ends(torch: Any) -> None:
    class SkipsAll(ll.Callback):
        def on_batch(self, event: Any) -> None:
            event.skip("too dark")

    with pytest.raises(ll.TrainingDiverged, match="no update was made of 5 batches in a row, a whole epoch: too dark"):
        ll.run(PLAIN, **said(), callbacks=[SkipsAll()])


def test_an_update_that_a_backend_does_not_make_leaves_the_batch_out(
    torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scaled loss that overflows: the session says so, and stands where it stood."""
    train_step = Session.train_step
    refused = iter([False, False, True, *[False] * 99])

    def overflowing(self: Session, images: Any, labels: Any, parts: int = 1) -> StepOutcome:
        if next(refused):
            return StepOutcome(None, made_update=False, why="the scaled loss overflows")
        return train_step(self, images, labels, parts)

    monkeypatch.setattr(Session, "train_step", overflowing)
    result = ll.run(PLAIN, **said())
    assert len(result.losses) == 10 and np.isfinite(result.losses).all()
    assert result.events == ({"event": "left out", "step": 2, "why": "the scaled loss overflows"},)


@pytest.mark.parametrize("method", ["on_begin", "on_batch", "on_update", "on_evaluation", "on_epoch", "on_checkpoint"])
def test_a_callback_that_raises_is_named_and_the_run_can_go_on(torch: Any, tmp_path: Path, method: str) -> None:
    class Breaks(ll.Callback):
        pass

    def raise_later(self: Any, event: Any) -> None:
        if event.run.step >= 5 or method == "on_begin":
            raise ValueError("no more disk")

    setattr(Breaks, method, raise_later)
    listener, folder = Listener(), tmp_path / "run"
    said_here = said(checkpoints=ll.Checkpoints(folder, every="1 epoch"))
    with pytest.raises(ll.CallbackError) as caught:
        ll.run(PLAIN, **said_here, callbacks=[Breaks(), listener])
    words = str(caught.value)
    assert f"callback Breaks raised ValueError in {method}: no more disk" in words
    assert f"layered-lr resume {folder}" in words and isinstance(caught.value.__cause__, ValueError)
    assert listener.names[-1] == "end: ValueError"
    whole, again = ll.run(PLAIN, **said()), ll.resume(folder, data=arrays(), trust=True)
    np.testing.assert_array_equal(again.losses, whole.losses)
    np.testing.assert_array_equal(again.accuracies, whole.accuracies)
    for name, weight in whole.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)


def test_a_callback_may_change_the_current_folder(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a run reads and writes stays where it was when the run began."""

    class Moves(ll.Callback):
        def on_begin(self, event: Any) -> None:
            monkeypatch.chdir(tmp_path / "there")

    make_folder(tmp_path / "here" / "pets")
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given: dict[str, Any] = {"model": _pets_net, "batch_size": 4, "max_steps": 3, "progress": False}
    result = ll.run(
        ll.Spec(ll.SGD(0.1)),
        data=ll.ImageFolder("pets", size=8, memory_bytes=0),
        checkpoints="run",
        save="result.npz",
        log=["csv:log.csv"],
        callbacks=[Moves(), ll.JSONLines("log.jsonl")],
        **given,
    )
    assert len(result.losses) == 3 and "is written there" not in capsys.readouterr().err
    assert not list((tmp_path / "there").iterdir())
    here = tmp_path / "here"
    assert {path.name for path in here.iterdir()} == {"pets", "run", "result.npz", "log.csv", "log.jsonl"}
    assert read_state(here / "run" / "checkpoints" / "step-00000003").step == 3
    monkeypatch.chdir(here)
    words = {"max_steps": 5, "trust": True, "checkpoints": "run"}
    assert len(ll.resume("run", callbacks=[Moves()], **words).losses) == 5
    assert read_state(here / "run" / "checkpoints" / "step-00000005").step == 5


def _pets_net() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(192, 3))


def test_a_callback_that_raises_without_a_folder_says_what_would_have_helped(torch: Any) -> None:
    class Breaks(ll.Callback):
        def on_update(self, event: Any) -> None:
            raise KeyError("oops")

    with pytest.raises(ll.CallbackError, match=r"KeyError in on_update: 'oops'.*after 1 updates.*checkpoints"):
        ll.run(PLAIN, **said(), callbacks=[Breaks()])


def test_every_callback_is_told_of_the_end_whatever_ends_the_run(torch: Any) -> None:
    class Breaks(ll.Callback):
        def on_end(self, event: Any) -> None:
            raise OSError("cannot close")

    class Interrupts(ll.Callback):
        def on_update(self, event: Any) -> None:
            raise KeyboardInterrupt

    listener = Listener()
    with pytest.raises(ll.CallbackError, match="Breaks raised OSError in on_end: cannot close"):
        ll.run(PLAIN, **said(epochs=1), callbacks=[Breaks(), listener])
    assert listener.names[-1] == "end: NoneType"
    listener = Listener()
    with pytest.raises(KeyboardInterrupt):
        ll.run(PLAIN, **said(epochs=1), callbacks=[Interrupts(), Breaks(), listener])
    assert listener.names[-1] == "end: KeyboardInterrupt"


def test_a_divergence_is_told_of_before_the_run_ends(torch: Any) -> None:
    listener = Listener()
    with pytest.raises(ll.TrainingDiverged):
        ll.run(ll.Spec(ll.SGD(1e30)), **said(), callbacks=[listener])
    assert listener.names[-2:] == ["divergence: stop", "end: TrainingDiverged"]


def test_the_handle_knows_the_run(torch: Any, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Looks(ll.Callback):
        def on_epoch(self, event: Any) -> None:
            run = event.run
            seen.update(
                backend=run.backend, total=run.total_steps, per_epoch=run.steps_per_epoch, folder=run.folder,
                names=[group.name for group in run.plan.groups], epoch=event.epoch, loss=event.loss,
                losses=run.losses.copy(), accuracies=run.accuracies.tolist(), weights=run.weights(),
                average=run.ema_weights(),
            )  # fmt: skip

    asked = said(checkpoints=tmp_path / "run", ema_decay=0.9)
    result = ll.run(PLAIN, **asked, callbacks=[Looks()])
    assert seen["backend"] == "torch-eager" and seen["total"] == 10 and seen["per_epoch"] == 5 and seen["epoch"] == 1
    assert seen["folder"] == tmp_path / "run" and seen["names"] == list(result.rates)
    assert seen["loss"] == pytest.approx(result.losses[5:].mean())
    assert seen["accuracies"] == result.accuracies.tolist()
    np.testing.assert_array_equal(seen["losses"], result.losses)
    for name, weight in result.weights.items():
        np.testing.assert_array_equal(seen["weights"][name], weight)
        np.testing.assert_array_equal(seen["average"][name], result.ema_weights[name])


def test_callbacks_are_not_written_down(torch: Any, tmp_path: Path) -> None:
    result = ll.run(PLAIN, **said(epochs=1, checkpoints=tmp_path / "run"), callbacks=[Listener()])
    assert "callbacks" not in result.options
    json.dumps(result.options)


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        (Listener, "a list of"),
        ([Listener], "give an object of it: Listener"),
        ([print], "derives from ll.Callback"),
        (3, "list"),
    ],
)
def test_what_is_no_callback_is_refused(callbacks: Any, words: str) -> None:
    with pytest.raises(ll.SpecError, match=words):
        ll.run(PLAIN, **said(), callbacks=callbacks)


@pytest.mark.parametrize(
    ("numbers", "words"), [({"loss": "low"}, "loss='low'"), ({"": 1.0}, "name ''"), ({"a": [1, 2]}, "single")]
)
def test_what_is_no_number_is_not_logged(torch: Any, numbers: Any, words: str) -> None:
    class Logs(ll.Callback):
        def on_begin(self, event: Any) -> None:
            event.run.log(numbers)

    with pytest.raises(ll.CallbackError, match=words):
        ll.run(PLAIN, **said(), callbacks=[Logs()])
