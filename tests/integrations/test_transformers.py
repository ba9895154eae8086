"""Hugging Face's Trainer trains with a spec, through its own accumulation, evaluation and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr_torch.integrations.transformers import use_spec
from tests.support import trainers
from tests.support.trainers import BATCHES, EPOCHS, SIZE, Net, Record, make_phases, make_plan, make_plateau, make_spec

transformers = pytest.importorskip("transformers")


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        logits = self.net(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.data = trainers.make_data()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        x, label = self.data[index]
        return {"x": x, "labels": label}


def make_trainer(spec: ll.Spec, folder: Path, **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=SIZE,
        report_to=[], use_cpu=True, disable_tqdm=True,
        **{"max_grad_norm": 0, "save_strategy": "no", "logging_steps": 1, **settings},
    )  # fmt: skip
    trainer = transformers.Trainer(Classifier(), arguments, train_dataset=Rows(), eval_dataset=Rows())
    use_spec(trainer, spec)
    create = trainer.create_optimizer

    def create_and_record(*given: Any, **named: Any) -> Any:
        optimizer = create(*given, **named)
        trainer.record = Record(optimizer)
        return optimizer

    trainer.create_optimizer = create_and_record
    return trainer


SPECS = [make_spec("net."), make_phases("net."), make_spec("net.", clip_grad_norm=0.3)]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "phases", "clip"])
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 4}, {"bf16": True}], ids=str)
def test_each_update_has_the_rates_of_the_plan_and_logs_them(spec: ll.Spec, settings: Any, tmp_path: Path) -> None:
    trainer = make_trainer(spec, tmp_path, **settings)
    trainer.train()
    plan = make_plan(spec, settings.get("gradient_accumulation_steps", 1), trainer.model)
    trainer.record.check(plan)
    logged = [line for line in trainer.state.log_history if "learning_rate" in line]
    assert [{n: line[f"lr/{n}"] for n in ("stem", "body", "head")} for line in logged] == trainer.record.rates


def test_a_phase_freezes(tmp_path: Path) -> None:
    trainer = make_trainer(make_phases("net."), tmp_path, max_steps=BATCHES)
    before = trainers.copy_weights(trainer.model)
    trainer.train()
    after = trainers.copy_weights(trainer.model)
    still = {name for name in before if "stem" in name and "num" not in name}
    trainers.check_same({n: before[n] for n in still}, {n: after[n] for n in still})
    assert not torch.equal(before["net.head.weight"], after["net.head.weight"])


def test_evaluations_reach_the_schedule(tmp_path: Path) -> None:
    trainer = make_trainer(make_plateau("net."), tmp_path, eval_strategy="epoch")
    trainer.train()
    trainer.record.check_plateau()


def test_two_clippings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ll.SpecError, match=r"Set TrainingArguments\(max_grad_norm=0\)"):
        make_trainer(make_spec("net.", clip_grad_norm=0.3), tmp_path, max_grad_norm=1.0).train()


def test_an_optimizer_of_ones_own_gets_the_scheduler(tmp_path: Path) -> None:
    model, spec = Classifier(), make_spec("net.")
    optimizer = torch.optim.SGD(ll.param_groups(spec, model))
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, report_to=[], use_cpu=True, save_strategy="no", max_grad_norm=0
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=Rows(), optimizers=(optimizer, None))
    use_spec(trainer, spec)
    record = Record(optimizer)
    trainer.train()
    record.check(ll.resolve(spec, Classifier(), 4, BATCHES), updates=4)


@pytest.mark.parametrize(
    ("spec", "stop"),
    [  # at 6 the Trainer saves before the evaluation of the epoch, and does not evaluate again when it goes on
        *((spec, stop) for spec in (make_spec("net."), make_phases("net.")) for stop in (4, 6, 10)),
        *((make_plateau("net."), stop) for stop in (4, 10, 13)),
    ],
)
def test_its_checkpoint_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": stop, "eval_strategy": "epoch"}
    whole = make_trainer(spec, tmp_path, **settings)
    whole.train()
    second = make_trainer(spec, tmp_path, **settings)
    second.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))
    assert whole.record.rates[stop:] == second.record.rates
    trainers.check_same(trainers.copy_weights(whole.model), trainers.copy_weights(second.model))


def test_peft_trains_its_adapters_at_their_rates(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    spec = ll.Spec(ll.AdamW(1e-3), [ll.Group("*lora_B*", lr_scale=4.0, name="b")], ll.CosineDecay())
    trainer = make_trainer(spec, tmp_path, max_steps=5)
    trainer.model = trainer.model_wrapped = peft.get_peft_model(
        trainer.model, peft.LoraConfig(r=2, target_modules=["net.body.1", "net.head"])
    )
    wanted = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.train()
    assert {
        name for name, tensor in trainer.model.named_parameters() if not torch.equal(tensor, before[name])
    } == wanted
    plan = trainer.lr_scheduler.plan
    assert [
        tuple(line[f"lr/{n}"] for n in ("b", "rest")) for line in trainer.state.log_history if "learning_rate" in line
    ] == [tuple(plan.rates(step)) for step in range(5)]


SCHEDULES = {
    "linear": lambda make, optimizer: make.get_linear_schedule_with_warmup(optimizer, 10, 60),
    "linear without warm-up": lambda make, optimizer: make.get_linear_schedule_with_warmup(optimizer, 0, 60),
    "cosine": lambda make, optimizer: make.get_cosine_schedule_with_warmup(optimizer, 10, 60),
    "constant": lambda make, optimizer: make.get_constant_schedule(optimizer),
    "constant after warm-up": lambda make, optimizer: make.get_constant_schedule_with_warmup(optimizer, 10),
    "inverse root": lambda make, optimizer: make.get_inverse_sqrt_schedule(optimizer, 10),
    "wsd": lambda make, optimizer: make.get_wsd_schedule(optimizer, 10, 20, num_stable_steps=30),
    "floor": lambda make, optimizer: make.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, 10, 60, min_lr_rate=0.1
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_transformers_are_adopted_as_values(name: str) -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = SCHEDULES[name](transformers.optimization, optimizer)
    assert ll.audit(optimizer, model, scheduler, steps=60).ok
    spec = ll.adopt(optimizer, model, scheduler)
    assert "transformers" not in spec.to_toml()
    plan = ll.plan(spec, model=model, total_steps=60)
    for step in range(60):
        assert plan.rates(step) == pytest.approx([optimizer.param_groups[0]["lr"]], rel=1e-12)
        optimizer.step()
        scheduler.step()
