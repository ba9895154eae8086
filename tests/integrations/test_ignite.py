"""PyTorch-Ignite's engines, and MONAI's, which are engines of Ignite, call a scheduler after each update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr_torch.integrations.ignite import attach
from tests.support import trainers
from tests.support.trainers import (
    BATCHES,
    EPOCHS,
    Net,
    Record,
    make_data,
    make_loader,
    make_phases,
    make_plan,
    make_plateau,
    make_spec,
)

pytest.importorskip("ignite")


class Run:
    """A trainer of Ignite with everything that its checkpoints hold."""

    def __init__(self, spec: ll.Spec, each: int = 1, amp: str | None = None) -> None:
        from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
        from ignite.metrics import Loss

        self.model, updates, loss = Net(), BATCHES // each, torch.nn.functional.cross_entropy
        self.optimizer, self.scheduler = ll.compile(spec, self.model, updates * EPOCHS, updates)
        self.record, self.seen = Record(self.optimizer), []
        step: Any = _autocast_step(self) if amp else None
        if step is None:
            self.trainer = create_supervised_trainer(self.model, self.optimizer, loss, gradient_accumulation_steps=each)
        else:
            from ignite.engine import Engine

            self.trainer = Engine(step)
        evaluator = create_supervised_evaluator(self.model, {"loss": Loss(loss)})
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(make_loader()))
        attach(self.trainer, self.scheduler, evaluator=evaluator, gradient_accumulation_steps=each)
        self.trainer.add_event_handler(
            Events.ITERATION_COMPLETED(every=each), lambda e: self.seen.append(e.state.rates)
        )

    @property
    def saved(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler, "trainer": self.trainer}


def _autocast_step(run: Run) -> Any:
    def step(_: Any, batch: Any) -> float:
        run.model.train()
        run.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(run.model(batch[0]), batch[1])
        loss.backward()
        run.optimizer.step()
        return float(loss)

    return step


@pytest.mark.parametrize(
    "spec", [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)], ids=["plain", "phases", "clip"]
)
@pytest.mark.parametrize(
    ("each", "amp"), [(1, None), (3, None), (1, "bfloat16")], ids=["plain", "accumulation", "bfloat16"]
)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, amp: str | None) -> None:
    run = Run(spec, each, amp)
    run.trainer.run(make_loader(), EPOCHS)
    run.record.check(make_plan(spec, each))
    assert [{name.removeprefix("lr/"): rate for name, rate in seen.items()} for seen in run.seen] == run.record.rates


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
def test_its_own_handler_for_schedulers_works_too(spec: ll.Spec) -> None:
    from ignite.engine import Events, create_supervised_trainer
    from ignite.handlers.param_scheduler import LRScheduler

    model = Net()
    optimizer, scheduler = ll.compile(spec, model, BATCHES * EPOCHS, BATCHES)
    record = Record(optimizer)
    trainer = create_supervised_trainer(model, optimizer, torch.nn.functional.cross_entropy)
    trainer.add_event_handler(Events.ITERATION_STARTED, LRScheduler(scheduler))
    trainer.run(make_loader(), EPOCHS)
    record.check(make_plan(spec))


def test_the_metric_of_an_evaluation_reaches_the_schedule() -> None:
    run = Run(make_plateau())
    run.trainer.run(make_loader(), EPOCHS)
    run.record.check_plateau()


@pytest.mark.parametrize("spec", [make_spec(), make_phases(), make_plateau()], ids=["plain", "phases", "plateau"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_checkpoint_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    from ignite.engine import Events
    from ignite.handlers import Checkpoint, DiskSaver

    whole, first, second = Run(spec), Run(spec), Run(spec)
    whole.trainer.run(make_loader(), EPOCHS)
    saver = Checkpoint(first.saved, DiskSaver(str(tmp_path)), filename_pattern="saved.pt")
    first.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), saver)
    first.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), lambda engine: engine.terminate())
    first.trainer.run(make_loader(), EPOCHS)
    Checkpoint.load_objects(second.saved, torch.load(tmp_path / "saved.pt"))
    second.trainer.run(make_loader(), EPOCHS)
    assert whole.record.rates == first.record.rates + second.record.rates
    trainers.check_same(trainers.copy_weights(whole.model), trainers.copy_weights(second.model))


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
def test_monai_trains_with_it(spec: ll.Spec) -> None:
    engines = pytest.importorskip("monai.engines")
    model = Net()
    optimizer, scheduler = ll.compile(spec, model, BATCHES * EPOCHS, BATCHES)
    record = Record(optimizer)
    rows = [{"image": x, "label": y} for x, y in make_data()]
    trainer = engines.SupervisedTrainer(
        torch.device("cpu"), EPOCHS, torch.utils.data.DataLoader(rows, batch_size=8), model, optimizer,
        torch.nn.CrossEntropyLoss(),
    )  # fmt: skip
    attach(trainer, scheduler)
    trainer.run()
    record.check(make_plan(spec))


def test_monais_own_handler_for_schedulers_works_too() -> None:
    engines, handlers = pytest.importorskip("monai.engines"), pytest.importorskip("monai.handlers")
    model = Net()
    optimizer, scheduler = ll.compile(make_phases(), model, BATCHES * EPOCHS, BATCHES)
    record = Record(optimizer)
    rows = [{"image": x, "label": y} for x, y in make_data()]
    engines.SupervisedTrainer(
        torch.device("cpu"), EPOCHS, torch.utils.data.DataLoader(rows, batch_size=8), model, optimizer,
        torch.nn.CrossEntropyLoss(),
        train_handlers=[handlers.LrScheduleHandler(scheduler, print_lr=False, epoch_level=False)],
    ).run()  # fmt: skip
    record.check(make_plan(make_phases()))
