"""Weights & Biases and MLflow, without a network: each holds what the result says, and goes on with the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.resuming import options

SPEC = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("head", lr_scale=2.0)], ll.ExponentialLR(gamma=0.9))


def said(**other: Any) -> dict[str, Any]:
    """Two epochs of five updates, without accumulation."""
    return options("torch-eager", **{"epochs": 2, "accumulate_steps": 1, "ema_decay": None, **other})


class Break(ll.Callback):
    def on_update(self, event: Any) -> None:
        if event.step == 6:
            raise ValueError("broken")


def in_two_parts(make: Any, folder: Path) -> ll.Result:
    """A run that breaks after seven updates and goes on."""
    with pytest.raises(ll.CallbackError):
        ll.run(SPEC, **said(callbacks=[make(), Break()], checkpoints=folder))
    again = {name: said()[name] for name in ("model", "data")}
    return ll.resume(folder, callbacks=[make()], **again)


def test_mlflow_holds_one_run(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    result = in_two_parts(lambda: ll.MLflow("digits", folder=tmp_path / "store"), tmp_path / "run")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    assert run.info.status == "FINISHED"

    def numbers(name: str) -> dict[int, float]:
        return {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}

    assert list(numbers("loss")) == list(range(10))
    np.testing.assert_array_equal(list(numbers("loss").values()), result.losses)
    np.testing.assert_array_equal(list(numbers("rate/head").values()), result.rates["head"])
    np.testing.assert_array_equal(list(numbers("grad_norm/rest").values()), result.group_grad_norms["rest"])
    assert list(numbers("accuracy")) == [4, 9] == list(numbers("weight_norm/head"))


def test_weights_and_biases_has_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logged: list[tuple[int, dict[str, float]]] = []
    begun: list[str] = []
    begin = wandb.init

    def init(**settings: Any) -> Any:
        run = begin(**settings)
        begun.append(run.id)
        log = run.log
        monkeypatch.setattr(run, "log", lambda values, step: (logged.append((step, values)), log(values, step=step)))
        return run

    monkeypatch.setattr(wandb, "init", init)
    result = in_two_parts(lambda: ll.WandB("digits", mode="offline", folder=tmp_path / "wb"), tmp_path / "run")
    assert len(begun) == 2 and len(set(begun)) == 1, "the same run goes on"
    assert [step for step, _ in logged] == list(range(10))
    np.testing.assert_array_equal([values["loss"] for _, values in logged], result.losses)
    np.testing.assert_array_equal([values["rate/head"] for _, values in logged], result.rates["head"])
    assert [step for step, values in logged if "accuracy" in values and "weight_norm/head" in values] == [4, 9]
    files = list((tmp_path / "wb").rglob("*.wandb"))
    assert files and all(file.stat().st_size for file in files)
