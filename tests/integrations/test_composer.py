"""Composer's Trainer calls a scheduler after each batch; Composer needs no module of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from tests.support import trainers
from tests.support.trainers import (
    BATCHES,
    EPOCHS,
    Net,
    Record,
    make_loader,
    make_phases,
    make_plan,
    make_plateau,
    make_spec,
)

composer = pytest.importorskip("composer")


class Model(composer.models.ComposerModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, batch: Any) -> Any:
        return self.net(batch[0])

    def loss(self, outputs: Any, batch: Any) -> Any:
        return torch.nn.functional.cross_entropy(outputs, batch[1])


class Tell(composer.Callback):
    """As docs/trainers.md shows it."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def epoch_end(self, state: Any, logger: Any) -> None:
        self.scheduler.step(metrics=float(state.loss))


def fit(spec: ll.Spec, folder: Path, duration: str = f"{EPOCHS}ep", **settings: Any) -> Any:
    model = Model()
    optimizer, scheduler = ll.compile(spec, model, BATCHES * EPOCHS, BATCHES)
    record = Record(optimizer)
    trainer = composer.Trainer(
        model=model, train_dataloader=make_loader(), max_duration=f"{EPOCHS}ep", optimizers=optimizer,
        schedulers=scheduler, step_schedulers_every_batch=True, device="cpu", progress_bar=False,
        save_folder=str(folder), save_interval="1ep", save_filename="{epoch}.pt", save_overwrite=True,
        callbacks=[Tell(scheduler)] if scheduler.plan.reacting_units else [], **settings,
    )  # fmt: skip
    trainer.fit() if duration == f"{EPOCHS}ep" else trainer.fit(duration=duration)
    trainer.close()
    return model, record


SPECS = [make_spec("net."), make_phases("net."), make_spec("net.", clip_grad_norm=0.3)]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "phases", "clip"])
@pytest.mark.parametrize("settings", [{}, {"device_train_microbatch_size": 4}], ids=str)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, settings: Any, tmp_path: Path) -> None:
    _, record = fit(spec, tmp_path, **settings)
    record.check(make_plan(spec, model=Model()))


def test_a_metric_reaches_the_schedule(tmp_path: Path) -> None:
    fit(make_plateau("net."), tmp_path)[1].check_plateau()


@pytest.mark.parametrize("spec", SPECS[:2], ids=["plain", "phases"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_checkpoint_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    whole, record = fit(spec, tmp_path)
    second, rest = fit(spec, tmp_path / "second", load_path=str(tmp_path / f"{stop}.pt"))
    made = [rates for rates in rest.rates if any(rates.values())]  # loading makes an update at rate 0 for new states
    assert record.rates[stop * BATCHES :] == made
    trainers.check_same(trainers.copy_weights(whole), trainers.copy_weights(second))
