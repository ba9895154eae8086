"""accelerate: each update one step of the scheduler, in one process and in two; its own checkpoints."""

from __future__ import annotations

import json
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

pytest.importorskip("accelerate")


def make(spec: ll.Spec, each: int = 1, **settings: Any) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from layered_lr_torch.integrations.accelerate import prepare_scheduler

    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=each, **settings)
    model, loader = Net(), make_loader()
    updates = -(-BATCHES // each // accelerator.num_processes)
    optimizer, scheduler = ll.compile(spec, model, updates * EPOCHS, updates)
    record = Record(optimizer)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    return accelerator, model, optimizer, loader, prepare_scheduler(accelerator, scheduler), record


def train(made: Any, start: int = 0, stop: int = EPOCHS) -> None:
    accelerator, model, optimizer, loader, scheduler, _ = made
    for _epoch in range(start, stop):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        if scheduler.scheduler.is_reactive:
            scheduler.scheduler.step(metrics=1.0)


SPECS = [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)]


@pytest.mark.parametrize("spec", SPECS, ids=["plain", "phases", "clip"])
@pytest.mark.parametrize(
    ("each", "precision"), [(1, "no"), (3, "no"), (1, "bf16")], ids=["plain", "accumulation", "bfloat16"]
)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, precision: str) -> None:
    made = make(spec, each, mixed_precision=precision)
    train(made)
    made[-1].check(make_plan(spec, each))


def test_a_metric_reaches_the_schedule() -> None:
    made = make(make_plateau())
    train(made)
    made[-1].check_plateau()


@pytest.mark.parametrize("spec", [make_spec(), make_phases(), make_plateau()], ids=["plain", "phases", "plateau"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_checkpoint_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    whole = make(spec)
    train(whole)
    first = make(spec)
    train(first, stop=stop)
    first[0].save_state(str(tmp_path))
    second = make(spec)
    second[0].load_state(str(tmp_path))
    train(second, start=stop)
    assert whole[-1].rates == first[-1].rates + second[-1].rates
    trainers.check_same(trainers.copy_weights(whole[1]), trainers.copy_weights(second[1]))


def train_in_a_process(rank: int, folder: str) -> None:
    import os

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = (Path(folder) / "port").read_text()
    torch.set_num_threads(1)
    answers = []
    for spec in (make_spec(), make_phases()):
        made = make(spec)
        train(made)
        made[-1].check(ll.resolve(spec, Net(), BATCHES // 2 * EPOCHS, BATCHES // 2))
        answers.append([float(p.double().sum()) for p in made[1].parameters()])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(answers))


def test_two_processes_make_one_step_in_an_update(tmp_path: Path) -> None:
    """Each process has half of the batches, the rates are those of the plan, and the replicas stay equal."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    torch.multiprocessing.spawn(train_in_a_process, (str(tmp_path),), nprocs=2)
    answers = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert answers[0] == answers[1]
