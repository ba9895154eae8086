"""mmengine's Runner trains with a spec: rates, phases, a metric, accumulation, its checkpoints."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr_torch.integrations.mmengine import make_hook
from tests.support import trainers
from tests.support.trainers import EPOCHS, Net, Record, make_loader, make_phases, make_plan, make_plateau, make_spec

mmengine = pytest.importorskip("mmengine")
for part in ("evaluator", "hooks", "model", "optim", "runner"):
    importlib.import_module(f"mmengine.{part}")


class Model(mmengine.model.BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Any, label: Any, mode: str) -> Any:
        logits = self.net(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, label)} if mode == "loss" else [logits.argmax(1)]


class Collated:
    """Batches of pairs as Model takes them."""

    def __init__(self) -> None:
        self.loader = make_loader()
        self.dataset, self.batch_size, self.sampler = self.loader.dataset, self.loader.batch_size, self.loader.sampler

    def __iter__(self) -> Any:
        return ({"x": x, "label": label} for x, label in self.loader)

    def __len__(self) -> int:
        return len(self.loader)


class Loss(mmengine.evaluator.BaseMetric):
    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1.0)

    def compute_metrics(self, results: Any) -> dict[str, float]:
        return {"loss": 1.0}


def run(
    spec: ll.Spec, folder: Path, each: int = 1, stop: int = EPOCHS, resume: Path | None = None, **settings: Any
) -> Any:
    model = Model()
    optimizer = torch.optim.SGD(ll.param_groups(spec, model))
    record = Record(optimizer)

    class Stop(mmengine.hooks.Hook):
        priority = "LOWEST"

        def after_train_epoch(self, runner: Any) -> None:
            runner.train_loop.stop_training = runner.epoch + 1 == stop

    hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1}, "logger": {"type": "LoggerHook"}}
    runner = mmengine.runner.Runner(
        model, str(folder), train_dataloader=Collated(), val_dataloader=Collated(), val_cfg={},
        val_evaluator=[Loss()], train_cfg={"by_epoch": True, "max_epochs": EPOCHS, "val_interval": 1},
        optim_wrapper=mmengine.optim.OptimWrapper(optimizer, accumulative_counts=each),
        custom_hooks=[make_hook(spec), Stop()],
        default_hooks=hooks, log_level="ERROR", experiment_name=folder.name + str(id(record)),
        load_from=None if resume is None else str(resume), resume=resume is not None, **settings,
    )  # fmt: skip
    runner.train()
    runner.record = record
    return runner


SPECS = [make_spec("net."), make_phases("net."), make_spec("net.", clip_grad_norm=0.3)]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "phases", "clip"])
@pytest.mark.parametrize("each", [1, 3])
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, tmp_path: Path) -> None:
    runner = run(spec, tmp_path, each)
    runner.record.check(make_plan(spec, each, Model()))


def test_updates_that_end_within_an_epoch(tmp_path: Path) -> None:
    """mmengine accumulates on into the next epoch, and makes an update of what is left at the end of the run."""
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("net.stem", lr_scale=0.1)], ll.CosineDecay())
    run(spec, tmp_path, 4).record.check(ll.resolve(spec, Model(), 5))
    with pytest.raises(ll.SpecError, match="counts epochs"):
        run(SPECS[0], tmp_path, 4)


def test_a_validation_reaches_the_schedule(tmp_path: Path) -> None:
    run(make_plateau("net."), tmp_path).record.check_plateau()


def test_a_param_scheduler_beside_the_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ll.SpecError, match="param_scheduler beside the spec"):
        run(SPECS[0], tmp_path, param_scheduler={"type": "StepLR", "step_size": 1})


@pytest.mark.parametrize("spec", SPECS[:2], ids=["plain", "phases"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_checkpoint_goes_on_bitwise(
    spec: ll.Spec, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # mmengine 0.10.7 pickles more than tensors
    whole = run(spec, tmp_path / "whole")
    first = run(spec, tmp_path / "first", stop=stop)
    second = run(spec, tmp_path / "second", resume=tmp_path / "first" / f"epoch_{stop}.pth")
    assert whole.record.rates == first.record.rates + second.record.rates
    trainers.check_same(trainers.copy_weights(whole.model), trainers.copy_weights(second.model))
