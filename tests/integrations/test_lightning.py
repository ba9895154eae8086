"""Lightning's own Trainer trains with a spec: rates, phases, a metric, accumulation, bfloat16, its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr_torch.integrations.lightning import configure_optimizers, log_rates
from tests.support import trainers
from tests.support.trainers import EPOCHS, Net, Record, make_loader, make_phases, make_plan, make_plateau, make_spec

lightning = pytest.importorskip("lightning")


class Module(lightning.LightningModule):
    def __init__(self, spec: ll.Spec, monitor: str | None = None) -> None:
        super().__init__()
        self.net, self.spec, self.monitor = Net(), spec, monitor

    def training_step(self, batch: Any, _: int) -> Any:
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        made = configure_optimizers(self.spec, self, self.net, monitor=self.monitor)
        self.record = Record(made[0][0])
        return made


def fit(module: Module, folder: Path, resume: Path | None = None, **settings: Any) -> Any:
    settings = {
        "max_epochs": EPOCHS,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "enable_checkpointing": False,
        **settings,
    }
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, **settings,
    )  # fmt: skip
    trainer.fit(module, make_loader(), make_loader(), ckpt_path=resume)
    return trainer


@pytest.mark.parametrize(
    "spec", [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)], ids=["plain", "phases", "clip"]
)
@pytest.mark.parametrize(
    ("each", "precision"),
    [(1, "32-true"), (4, "32-true"), (1, "bf16-mixed")],
    ids=["plain", "accumulation", "bfloat16"],
)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, precision: Any, tmp_path: Path) -> None:
    module = Module(spec)
    before = trainers.copy_weights(module.net)
    trainer = fit(module, tmp_path, accumulate_grad_batches=each, precision=precision, callbacks=[log_rates()])
    plan = make_plan(spec, each)
    module.record.check(plan)
    last = plan.lr(plan.total_steps - 1)
    assert {name: float(trainer.callback_metrics[f"lr/{name}"]) for name in last} == pytest.approx(last, rel=1e-6)
    assert not torch.equal(before["stem.0.weight"], module.net.stem[0].weight)


@pytest.mark.parametrize(
    ("settings", "updates", "per_epoch"),
    [({"max_epochs": None, "max_steps": 8}, 8, 6), ({"limit_train_batches": 0.5}, 9, 3), ({"max_steps": 4}, 4, 6)],
    ids=str,
)
def test_lengths_come_from_the_trainer(settings: Any, updates: int, per_epoch: int, tmp_path: Path) -> None:
    module = Module(make_phases())
    fit(module, tmp_path, **settings)
    module.record.check(ll.resolve(make_phases(), Net(), updates, per_epoch))


def test_a_run_without_an_end(tmp_path: Path) -> None:
    module = Module(ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("stem", lr_scale=0.1)], ll.StepLR(3)))

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 8

    fit(module, tmp_path, max_epochs=-1, callbacks=[Stop()])
    assert [rates["stem"] for rates in module.record.rates] == pytest.approx([0.01] * 3 + [1e-3] * 3 + [1e-4] * 2)


def test_a_phase_freezes(tmp_path: Path) -> None:
    module = Module(make_phases())
    before = trainers.copy_weights(module.net)
    fit(module, tmp_path, max_epochs=1)
    after = trainers.copy_weights(module.net)
    trainers.check_same(
        *({n: t for n, t in each.items() if "stem" in n and "num" not in n} for each in (before, after))
    )
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_a_metric_that_is_logged_reaches_the_schedule(tmp_path: Path) -> None:
    module = Module(make_plateau(), monitor="val_loss")
    fit(module, tmp_path)
    module.record.check_plateau()
    with pytest.raises(ll.SpecError, match="monitor='val_loss'"):
        fit(Module(make_plateau()), tmp_path)


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_checkpoint_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    """Without a metric: Lightning 2.6 saves before its own plateau schedulers read the metric, and forgets that one."""
    whole, first, second = (Module(spec) for _ in range(3))
    fit(whole, tmp_path)

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = trainer.current_epoch == stop - 1

    saver = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, "saved", save_on_train_epoch_end=True)
    fit(first, tmp_path, callbacks=[Stop(), saver], enable_checkpointing=True)
    fit(second, tmp_path, resume=tmp_path / "saved.ckpt")
    assert whole.record.rates == first.record.rates + second.record.rates
    trainers.check_same(trainers.copy_weights(whole), trainers.copy_weights(second))
