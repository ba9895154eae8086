"""Metrics beside the accuracy; runs that end early and get their best weights back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.state import read_state
from layered_lr.training.best_weights import Watcher
from tests.support import resuming
from tests.support.models import arrays
from tests.support.resuming import assert_same, options
from tests.support.stopping import StopAfter, stopped

SPEC = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("head", lr_scale=2.0)])


def said(backend: str = "torch-eager", **other: Any) -> dict[str, Any]:
    """Six epochs of five updates."""
    return options(backend, **{"epochs": 6, "accumulate_steps": 1, "ema_decay": None, **other})


class Scripted:
    """A metric that gives the numbers that it is told, one at each evaluation."""

    def __init__(self, *values: float) -> None:
        self.values, self.__name__ = list(values), "scripted"

    def __call__(self, outputs: Any, targets: Any) -> float:
        return self.values.pop(0)


class Weights(ll.Callback):
    """Keeps the weights after each epoch."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_epoch(self, event: Any) -> None:
        self.kept.append({name: array.copy() for name, array in event.run.weights().items()})


def largest_share(outputs: Any, targets: Any) -> float:
    """A number that changes in each epoch."""
    return float(np.mean(outputs.max(axis=1)))


def test_a_metric_sees_the_whole_test_set_once_an_epoch(backend: Any) -> None:
    seen: list[Any] = []

    def error_rate(outputs: Any, targets: Any) -> float:
        seen.append((outputs.shape, outputs.dtype, targets.tolist()))
        return float(np.mean(outputs.argmax(axis=1) != targets))

    result = ll.run(SPEC, **said(backend.name, epochs=2, batch_size=7), metrics=[error_rate])
    test = arrays()[3]
    assert [each[2] for each in seen] == [test.tolist()] * 2 and seen[0][0][0] == len(test)
    steps, values = result.logged["error_rate"].T
    np.testing.assert_allclose(values, 1 - result.accuracies, rtol=1e-12)  # a division each
    assert steps[-1] == len(result.losses)


def test_a_metric_may_have_the_name_of_an_argument_of_the_library(torch: Any, tmp_path: Path) -> None:
    names = ("self", "what", "values", "epoch", "rate/head", "logged/loss")
    metrics = {name: Scripted(place, place + 10) for place, name in enumerate(names)}
    result = ll.run(SPEC, **said(epochs=2, checkpoints=tmp_path / "run"), metrics=metrics)
    lines = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    ends = [line for line in lines if line["event"] == "epoch"]
    for place, name in enumerate(names):
        assert result.logged[name][:, 1].tolist() == [place, place + 10] == [line[name] for line in ends]


def test_a_callback_cannot_log_under_the_name_of_a_metric(torch: Any) -> None:
    class Logs(ll.Callback):
        def __init__(self, name: str, number: Any) -> None:
            self.name, self.number = name, number

        def on_update(self, event: Any) -> None:
            event.run.log({self.name: self.number})

    for name, number, why in (("share", 1.0, "is one of the run's metrics"), ("mine", 10**400, "must be a number")):
        with pytest.raises(ll.CallbackError, match=why):
            ll.run(SPEC, **said(epochs=1), metrics={"share": largest_share}, callbacks=[Logs(name, number)])


def test_the_moving_average_is_measured_too(torch: Any) -> None:
    result = ll.run(SPEC, **said(epochs=1, ema_decay=0.5), metrics={"share": largest_share})
    assert result.logged["share"][0, 1] != result.logged["ema share"][0, 1]


def test_torchmetrics_objects_and_plain_functions_agree(torch: Any) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    classes = len(np.unique(arrays()[1]))
    metric = torchmetrics.classification.MulticlassAccuracy(num_classes=classes, average="micro")
    result = ll.run(SPEC, **said(epochs=2), metrics={"theirs": metric})
    np.testing.assert_allclose(result.logged["theirs"][:, 1], result.accuracies, rtol=1e-6)  # theirs is float32


def test_a_schedule_watches_a_metric_by_its_name(backend: Any, tmp_path: Path) -> None:
    spec = ll.Spec(ll.SGD(0.05), schedule=ll.ReduceLROnPlateau("max", 0.1, patience=0, metric="scripted"))
    values = [1.0, 5.0, 3.0, 4.0, 6.0, 2.5]
    chosen = said(backend.name, epochs=6, checkpoints=tmp_path / "r")
    result = ll.run(spec, **chosen, metrics=[Scripted(*values)])
    due = [0.05, 0.05, 0.05, 0.005, 0.0005, 0.0005]  # of each epoch: two of them end worse than the best
    np.testing.assert_allclose(result.rates["rest"][::5], due, rtol=1e-6)  # OneFlow's rates are float32
    assert 'metric = "scripted"' in (tmp_path / "r" / "recipe.toml").read_text()


def test_a_schedule_watches_the_moving_average(torch: Any) -> None:
    """torch's own schedule is shown what the run measured."""
    for metric in ("ema accuracy", "ema scripted"):
        spec = ll.Spec(ll.SGD(0.5), schedule=ll.ReduceLROnPlateau("max", 0.1, patience=0, metric=metric))
        scripted = Scripted(*range(16, 0, -1))
        result = ll.run(spec, **said(epochs=8, ema_decay=0.3), metrics={"scripted": scripted})
        ours = result.ema_accuracies if metric == "ema accuracy" else result.logged[metric][:, 1]
        optimizer = torch.optim.SGD([torch.zeros(1)], 0.5)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.1, patience=0)
        due = []
        for value in ours.tolist():
            due.append(optimizer.param_groups[0]["lr"])
            theirs.step(value)
        assert result.rates["rest"][::5].tolist() == due and due[-1] < 0.5


def test_the_best_weights_are_those_of_the_best_moving_average(torch: Any, tmp_path: Path) -> None:
    watched: dict[str, Any] = {
        "early_stop": ll.EarlyStop("ema accuracy", patience=20),
        "checkpoints": ll.Checkpoints(tmp_path / "r", best_metric="ema accuracy", keep=1),
    }
    result = ll.run(ll.Spec(ll.SGD(0.5)), **said(epochs=8, ema_decay=0.6), **watched)
    best = 5 * (int(np.argmax(result.ema_accuracies)) + 1)
    assert best < len(result.losses) and best != 5 * (int(np.argmax(result.accuracies)) + 1)
    assert [event["best_step"] for event in result.events if event["event"] == "restored"] == [best]
    assert {each.name for each in (tmp_path / "r" / "checkpoints").iterdir()} == {f"step-{best:08}", "step-00000040"}


@pytest.mark.parametrize(
    ("plateau", "match"),
    [
        ({"metric": "ema accuracy"}, r"metric='ema accuracy' is not measured"),
        ({"metric": "top3"}, r"metric='top3' is not measured; what is: loss, accuracy, scripted"),
        ({"metric": "script"}, "Did you mean 'scripted'"),
        ({"metric": "scripted", "unit": "step"}, "'scripted' is not measured at each step; what is: loss"),
        ({"metric": "accuracy", "unit": "step"}, "'accuracy' is not measured at each step"),
    ],
)
def test_a_schedule_of_what_is_not_measured_is_refused(torch: Any, plateau: Any, match: str) -> None:
    spec = ll.Spec(ll.SGD(0.05), schedule=ll.ReduceLROnPlateau("max", **plateau))
    with pytest.raises(ll.SpecError, match=match):
        ll.run(spec, **said(), metrics=[Scripted(1.0)])


def test_a_schedule_and_the_best_checkpoint_follow_a_metric(torch: Any, tmp_path: Path) -> None:
    spec = ll.Spec(
        ll.SGD(0.05), schedule=ll.ReduceLROnPlateau("max", 0.1, patience=0, metric=lambda found: found["scripted"])
    )
    values = [1.0, 5.0, 3.0, 4.0, 2.0, 2.5]
    rates = ll.run(spec, **said(), metrics=[Scripted(*values)]).rates["rest"]
    np.testing.assert_allclose(rates[::5], [0.05, 0.05, 0.05, 0.005, 0.0005, 0.00005], rtol=1e-12)  # a product each

    for mode, best in (("max", 10), ("min", 5)):
        where = ll.Checkpoints(tmp_path / mode, keep=1, best_metric="scripted", best_mode=mode)
        ll.run(SPEC, **said(checkpoints=where), metrics=[Scripted(*values)])
        kept = sorted(read_state(path).step for path in (tmp_path / mode / "checkpoints").glob("step-*"))
        assert kept == [best, 30]


@pytest.mark.parametrize(
    ("settings", "values", "epochs", "best"),
    [
        ({"patience": 2}, [1, 3, 2, 2, 9, 9], 4, 2),
        ({"patience": 2, "mode": "min"}, [3, 1, 2, 2, 0, 0], 4, 2),
        ({"patience": 2, "min_delta": 0.5}, [1, 1.4, 1.4, 9, 9, 9], 3, 1),
        ({"patience": 1}, [float("nan"), 9, 9, 9, 9, 9], 1, None),
        ({"target": 4.0}, [1, 3, 5, 9, 9, 9], 3, 3),
        ({"target": 2.0, "mode": "min"}, [9, 2, 1, 1, 1, 1], 2, 2),
        ({"target": 0.9, "min_delta": 0.1}, [0.85, 0.9, 0.1, 0.1, 0.1, 0.1], 2, 2),
        ({"target": 0.8, "min_delta": 0.3, "mode": "min"}, [1, 0.8, 2, 2, 2, 2], 2, 2),
        ({}, [1, 2, 7, 4, 5, 6], 6, 3),
    ],
    ids=[
        "patience",
        "less is better",
        "least change",
        "not a number",
        "target",
        "low target",
        "target within the least change",
        "low target within the least change",
        "only the best weights",
    ],
)
def test_a_run_ends_early_with_its_best_weights(
    torch: Any, settings: dict[str, Any], values: list[float], epochs: int, best: int | None
) -> None:
    kept = Weights()
    stop = ll.EarlyStop("scripted", **{"mode": "max", **settings})
    result = ll.run(SPEC, **said(), metrics=[Scripted(*values)], early_stop=stop, callbacks=[kept])
    assert len(result.losses) == 5 * epochs and len(result.accuracies) == epochs
    due = kept.kept[(best or epochs) - 1]
    assert all(np.array_equal(result.weights[name], array) for name, array in due.items())
    stops = [event for event in result.events if event["event"] == "stopped"]
    assert len(stops) == (epochs < 6) and all("scripted" in event["why"] for event in stops)
    if best is not None and best < epochs:
        assert {"event": "restored", "step": 5 * epochs, "best_step": 5 * best, "metric": "scripted"} in result.events


@pytest.mark.parametrize("steps", [30, 27], ids=["whole epochs", "within an epoch"])
def test_the_run_s_folder_has_the_weights_and_the_average_of_the_best_epoch_too(
    torch: Any, tmp_path: Path, steps: int
) -> None:
    class Averages(ll.Callback):
        def __init__(self) -> None:
            self.kept: list[Any] = []

        def on_epoch(self, event: Any) -> None:
            self.kept.append({name: array.copy() for name, array in event.run.ema_weights().items()})

    kept, averages = Weights(), Averages()
    stop = ll.EarlyStop("scripted", mode="max")
    result = ll.run(
        SPEC,
        **said(ema_decay=0.9, max_steps=steps, checkpoints=tmp_path / "run"),
        metrics=[Scripted(*[value for value in (1, 2, 7, 4, 5, 6) for _ in range(2)])],
        early_stop=stop,
        callbacks=[kept, averages],
    )
    for found in (result, ll.Result.load(tmp_path / "run")):
        assert all(np.array_equal(found.weights[name], array) for name, array in kept.kept[2].items())
        assert all(np.array_equal(found.ema_weights[name], array) for name, array in averages.kept[2].items())


@pytest.mark.parametrize("better", [True, False])
@pytest.mark.parametrize(
    ("metric", "way"),
    [
        ("loss", "a callback"),
        ("loss", "the time"),
        ("loss", "the last update"),
        ("accuracy", "a callback"),
        ("share", "a callback"),
        ("share", "the last update"),
    ],
)
def test_a_run_that_ends_within_an_epoch_has_the_weights_that_its_folder_has(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metric: str, better: bool, way: str
) -> None:
    """They are the last ones, where these are better than those of each whole epoch, and else the best epoch's."""
    stop = ll.EarlyStop(metric, mode="auto" if metric != "share" else "max", min_delta=0.0 if better else 1e9)
    if way == "the time":
        late = iter([*[False] * 7, *[True] * 9])
        monkeypatch.setattr(Watcher, "is_late", property(lambda _: next(late)))
        stop = replace(stop, time_limit=100.0)
    callbacks = [StopAfter(8)] if way == "a callback" else []
    given: dict[str, Any] = {"metrics": {"share": Scripted(0.1, 0.9, 0.2, 0.3, 0.3, 0.3)}, "early_stop": stop}
    spec = ll.Spec(ll.SGD(0.05, momentum=0.9))
    if metric == "accuracy" and better:
        monkeypatch.setattr("layered_lr.training.loop.evaluate", lambda *_, **__: (next(rights), {"share": 0.0}))
        rights = iter([0.1, 0.9, 0.2, 0.2])
    where = ll.Checkpoints(tmp_path / "run", every=1)
    words = said(max_steps=8 if way == "the last update" else 20, checkpoints=where)
    result = ll.run(spec, **words, **given, callbacks=callbacks)
    assert len(result.losses) == 8
    loaded = ll.Result.load(tmp_path / "run")
    last = read_state(tmp_path / "run" / "checkpoints" / "step-00000008")
    weights = last.weights if better else {name[5:]: rows for name, rows in last.history.items() if name[:5] == "best/"}
    for found in (result, loaded):
        assert weights and all(np.array_equal(found.weights[name], array) for name, array in weights.items())
    monkeypatch.undo()
    if way == "the last update":  # to go on with a run that has ended changes nothing
        assert_same(ll.resume(tmp_path / "run", data=arrays(), metrics=given["metrics"], trust=True), result)


def test_to_go_on_after_an_end_within_an_epoch_is_as_if_it_had_not_ended(torch: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"metrics": {"share": largest_share}, "early_stop": ll.EarlyStop("share", mode="max")}
    whole = ll.run(SPEC, **said(epochs=3), **given)
    ll.run(SPEC, **said(epochs=3, checkpoints=tmp_path / "run"), **given, callbacks=[StopAfter(8)])
    again = ll.resume(tmp_path / "run", data=arrays(), metrics=given["metrics"], trust=True)
    assert_same(again, whole)
    np.testing.assert_array_equal(again.logged["share"], whole.logged["share"])
    assert_same(ll.Result.load(tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ll.EarlyStop("loss"), ll.EarlyStop("share", mode="max")),  # measured for the first time: no number
        (ll.EarlyStop("share", mode="max", restore_best=False), ll.EarlyStop("share", mode="max")),
        (ll.EarlyStop("share", mode="min"), ll.EarlyStop("share", mode="max")),
    ],
    ids=["another metric", "kept none", "the other way round"],
)
def test_the_best_weights_of_something_else_never_come_back(
    torch: Any, tmp_path: Path, before: ll.EarlyStop, after: ll.EarlyStop
) -> None:
    values = [2.0, 9.0, 1.0] if before.metric == "share" else [2.0, 2.0, 2.0]
    run = tmp_path / "run"
    ll.run(SPEC, **said(epochs=3, checkpoints=run), metrics={"share": Scripted(*values)}, early_stop=before)
    end = Scripted(float("nan") if before.metric == "loss" else 5.0)
    result = ll.resume(run, data=arrays(), metrics={"share": end}, early_stop=after, epochs=4, trust=True)
    last = read_state(run / "checkpoints" / "step-00000020")
    for found in (result, ll.Result.load(run)):
        assert all(np.array_equal(found.weights[name], array) for name, array in last.weights.items())
    lost = [event for event in result.events if event["event"] == "not restored"]
    assert [event["best_step"] for event in lost] == ([] if before.metric == "loss" else [10])


def test_the_last_weights_stay_where_they_are_wanted(torch: Any) -> None:
    kept = Weights()
    stop = ll.EarlyStop("scripted", patience=2, mode="max", restore_best=False)
    result = ll.run(SPEC, **said(), metrics=[Scripted(9, 2, 3)], early_stop=stop, callbacks=[kept])
    assert len(kept.kept) == 3
    assert all(np.array_equal(result.weights[name], array) for name, array in kept.kept[-1].items())


@pytest.mark.parametrize("after", [8, 10, 12])
def test_a_run_that_goes_on_ends_as_the_whole_one(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: int
) -> None:
    """Patience, the best value and the best weights are in the checkpoint."""
    given = {"metrics": {"share": largest_share}, "early_stop": ll.EarlyStop("share", patience=2, mode="min")}
    whole = ll.run(SPEC, **said(), **given)
    assert len(whole.losses) == 20 and any(event.get("best_step") == 10 for event in whole.events)
    stopped(monkeypatch, tmp_path / "run", SPEC, after, **said(), **given)
    again = ll.resume(tmp_path / "run", data=arrays(), metrics=given["metrics"], trust=True)
    assert_same(again, whole)
    np.testing.assert_array_equal(again.logged["share"], whole.logged["share"])
    ended = ll.resume(tmp_path / "run", data=arrays(), metrics=given["metrics"], trust=True)
    assert_same(ended, whole)  # a run that has ended early does not go on by itself
    for found in (again, ended, ll.Result.load(tmp_path / "run")):
        assert found.events == whole.events and [event["event"] for event in found.events] == ["stopped", "restored"]
    (listed,) = ll.list_runs(tmp_path / "run")
    assert (listed.state, listed.note) == ("finished", whole.events[0]["why"])
    longer = ll.resume(tmp_path / "run", data=arrays(), early_stop=None, trust=True)
    assert len(longer.losses) == 30 and longer.events == ()


@pytest.mark.parametrize("way", ["the time", "a callback", "the last update"])
def test_the_folder_says_why_a_run_ended_and_which_weights_it_has(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    stop = ll.EarlyStop("scripted", mode="max", time_limit=100.0 if way == "the time" else None)
    if way == "the time":
        late = iter([*[False] * 11, *[True] * 9])
        monkeypatch.setattr(Watcher, "is_late", property(lambda _: next(late)))
    result = ll.run(
        SPEC,
        **said(max_steps=12 if way == "the last update" else 20, checkpoints=tmp_path / "run"),
        metrics=[Scripted(9, 2, 3, 4)],
        early_stop=stop,
        callbacks=[StopAfter(12)] if way == "a callback" else [],
    )
    ends = ["restored"] if way == "the last update" else ["stopped", "restored"]
    assert [event["event"] for event in result.events] == ends
    assert ll.Result.load(tmp_path / "run").events == result.events
    assert ll.Result.load(tmp_path / "run", checkpoint=12).events == result.events[:-1], "these are the last weights"
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines if '"event": "epoch"' not in line] == list(result.events)


def test_the_result_and_the_card_say_which_weights_they_are_of(torch: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"metrics": [Scripted(0.1, 0.9, 0.2)], "early_stop": ll.EarlyStop("scripted", mode="max")}
    result = ll.run(SPEC, **said(epochs=3, checkpoints=tmp_path / "run"), **given)
    best = f"{result.accuracies[1]:.4f}"
    loaded = ll.Result.load(tmp_path / "run")
    for found in (result, loaded):
        assert f"the weights are those of the best epoch, after 10 of 15 steps: test accuracy {best}\n" in str(found)
        for row in (
            "| weights | those of the best epoch, after 10 updates |",
            f"| test accuracy, of these weights | {best} |",
            "| scripted, of these weights | 0.9 |",
            "| scripted, last | 0.2 |",
        ):
            assert row in found.card(), row
    last = ll.Result.load(tmp_path / "run", checkpoint=15)
    assert "best epoch" not in str(last) and "of these weights" not in last.card()


def test_on_each_backend_the_loss_can_decide(backend: Any) -> None:
    result = ll.run(SPEC, **said(backend.name), early_stop=ll.EarlyStop("loss", target=1e9))
    assert len(result.losses) == 5


def test_a_run_ends_when_its_time_is_over(torch: Any) -> None:
    result = ll.run(SPEC, **said(), early_stop=ll.EarlyStop(time_limit=1e-9))
    assert len(result.losses) == 1 and "time limit" in result.events[-1]["why"]
    assert len(ll.run(SPEC, **said(epochs=1), early_stop=ll.EarlyStop(time_limit="60 minutes")).losses) == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": 3}, "must be a function"),
        ({"metrics": {"accuracy": largest_share}}, "measured already"),
        ({"metrics": {"step": largest_share}}, "'step' is taken: each line"),
        ({"metrics": {"event": largest_share}}, "'event' is taken: each line"),
        ({"metrics": {"": largest_share}}, "not empty"),
        ({"metrics": [largest_share, largest_share]}, "given twice"),
        ({"metrics": [Scripted]}, "is the class Scripted"),
        ({"metrics": {"a": lambda outputs, targets: outputs}}, "must be a single number"),
        ({"metrics": {"a": lambda outputs, targets: 10**400}}, "too large for a float"),
        ({"metrics": {"a": lambda outputs: 1.0}}, "'a' of outputs .* raised TypeError"),
        ({"early_stop": ll.EarlyStop("f1", mode="max")}, "'f1' is not measured; what is: loss, accuracy"),
        ({"early_stop": 3}, "must be ll.EarlyStop"),
        ({"checkpoints": {"folder": "x", "best_metric": "f1", "best_mode": "max"}}, "'f1' is not measured"),
    ],
)
def test_wrong_metrics_are_refused(
    torch: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ll.SpecError, match=message):
        ll.run(SPEC, **said(epochs=1), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "f1"}, "say whether more is better"),
        ({"mode": "min"}, "the best accuracy is the highest"),
        ({"metric": "loss", "mode": "max"}, "the best loss is the lowest"),
        ({"patience": 0}, "whole number >= 1"),
        ({"patience": True}, "whole number >= 1"),
        ({"min_delta": -1}, ">= 0"),
        ({"target": float("nan")}, "a number"),
        ({"time_limit": "3 epochs"}, "a time, such as"),
        ({"time_limit": 0}, "above 0"),
        ({"restore_best": 1}, "true or false"),
        ({"patiance": 1}, "patience"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        ll.EarlyStop(**given)


def test_the_text_of_a_flag_is_a_number_of_seconds_too() -> None:
    found = [ll.EarlyStop(time_limit=text).time_limit for text in ("2", " 2.5 ", "2 seconds", "1 minute")]
    assert found == [2.0, 2.5, 2.0, 60.0]
    for text in ("0", "0.0", "-1", "inf", "nan", "1e9", "", "2 epochs"):
        with pytest.raises(ll.SpecError, match="or a number of seconds above 0"):
            ll.EarlyStop(time_limit=text)


def test_a_metric_that_is_not_measured_is_for_python(call: Any, torch: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))
    words = ["--data", str(tmp_path / "d.npz"), "--model", "tests.support.resuming:torch_net", "--batch-size", "8"]
    answer = call("run", *words, "--stop-metric", "f1", "--stop-mode", "max")
    assert answer.code == 2 and "in Python: metrics={'name': function}; the command measures no others" in answer.err
    answer = call("run", *words, "--time-limit", "0")
    assert answer.code == 2 and "--time-limit 0: must be a time" in answer.err
    answer = call("run", *words, "--checkpoint-every", "2.5", "--checkpoint-dir", str(tmp_path / "run"))
    assert answer.code == 2 and "--checkpoint-every 2.5: must be a time, such as '1 epoch'" in answer.err
    assert not (tmp_path / "run").exists()


def test_the_command_has_it(call: Any, torch: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))
    where = tmp_path / "run"
    words = ["--data", str(tmp_path / "d.npz"), "--model", "tests.support.resuming:torch_net", "--epochs", "3"]
    words += ["--batch-size", "8", "--no-progress", "--checkpoint-dir", str(where), "--best-metric", "loss"]
    words += ["--stop-metric", "loss", "--stop-target", "1e9", "--time-limit", "20 minutes", "--no-restore-best"]
    assert call("run", *words, "--trust").code == 0
    assert resuming.EPOCHS == 3 and len((where / "metrics.csv").read_text().splitlines()) == 1 + 5
