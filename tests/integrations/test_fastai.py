"""fastai's Learner trains with a spec: rates, phases, a metric, accumulation, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import layered_lr as ll
from layered_lr_torch.integrations.fastai import use_spec
from tests.support import trainers
from tests.support.trainers import (
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

pytest.importorskip("fastai")


def make_learner(spec: ll.Spec, folder: Path, each: int = 1, **settings: Any) -> Any:
    import fastai.callback.progress  # noqa: F401 - adds no_bar
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    loaders = DataLoaders(*(DataLoader(make_data(), bs=8, num_workers=0) for _ in range(2)))
    learner = Learner(loaders, Net(), loss_func=torch.nn.functional.cross_entropy, path=folder, **settings)
    updates = len(make_loader()) // each
    lengths = (updates * EPOCHS, updates) if each > 1 else ()
    learner.spec = use_spec(learner, spec, *lengths)
    create = learner.opt_func

    def create_and_record(*given: Any, **named: Any) -> Any:
        made = create(*given, **named)
        learner.record = Record(made.opt)
        return made

    learner.opt_func = create_and_record
    return learner


@pytest.mark.parametrize(
    "spec", [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)], ids=["plain", "phases", "clip"]
)
@pytest.mark.parametrize("each", [1, 2])
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, tmp_path: Path) -> None:
    from fastai.callback.training import GradientAccumulation

    learner = make_learner(spec, tmp_path, each, cbs=[GradientAccumulation(16)] if each > 1 else [])
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS, lr=7.0, wd=0.0)
    learner.record.check(make_plan(spec, each))
    assert {name.removeprefix("lr/"): rate for name, rate in learner.spec.rates.items()} == learner.record.rates[-1]


def test_an_update_that_is_left_out_does_not_count(tmp_path: Path) -> None:
    from fastai.callback.core import Callback, CancelStepException

    class LeaveOut(Callback):
        order = 10

        def before_step(self) -> None:
            if self.iter == 3:
                raise CancelStepException

    learner = make_learner(make_spec(), tmp_path, cbs=[LeaveOut()])
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS)
    learner.record.check(make_plan(make_spec()), updates=15)


def test_the_validation_reaches_the_schedule(tmp_path: Path) -> None:
    learner = make_learner(make_plateau(), tmp_path)
    with learner.no_bar(), learner.no_logging():
        learner.fit(EPOCHS)
    learner.record.check_plateau()


def test_what_fastai_froze_is_freed(tmp_path: Path) -> None:
    import fastai.callback.progress  # noqa: F401 - adds no_bar
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Learner

    loaders = DataLoaders(*(DataLoader(make_data(), bs=8, num_workers=0) for _ in range(2)))
    net = Net()
    learner = Learner(
        loaders,
        net,
        loss_func=torch.nn.functional.cross_entropy,
        splitter=lambda model: [list(part.parameters()) for part in (model.stem, model.body, model.head)],
        train_bn=False,
    )
    learner.freeze()
    assert not net.stem[0].weight.requires_grad
    use_spec(learner, make_spec())
    before = net.stem[0].weight.detach().clone()
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    assert not torch.equal(before, net.stem[0].weight)


def test_schedules_of_fastai_are_refused(tmp_path: Path) -> None:
    from fastai.callback.training import GradientAccumulation

    learner = make_learner(make_spec(), tmp_path)
    with learner.no_bar(), learner.no_logging():
        import fastai.callback.schedule  # noqa: F401 - adds the method

        with pytest.raises(ll.SpecError, match="ParamScheduler sets rates beside the spec"):
            learner.fit_one_cycle(1)
        with pytest.raises(ll.SpecError, match="fewer updates than there are batches"):
            learner.fit(1, cbs=[GradientAccumulation(16)])


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
@pytest.mark.parametrize("stop", [1, 2])
def test_its_file_goes_on_bitwise(spec: ll.Spec, stop: int, tmp_path: Path) -> None:
    from fastai.callback.core import Callback, CancelFitException

    class Stop(Callback):
        order = 100

        def after_epoch(self) -> None:
            if self.epoch == stop - 1:
                raise CancelFitException

    whole, first, second = (make_learner(spec, tmp_path) for _ in range(3))
    with whole.no_bar(), whole.no_logging():
        whole.fit(EPOCHS)
    with first.no_bar(), first.no_logging():
        first.fit(EPOCHS, cbs=[Stop()])
        first.save("saved", with_opt=True)
    with second.no_bar(), second.no_logging():
        second.create_opt()
        second.load("saved", with_opt=True)
        second.fit(EPOCHS, start_epoch=stop)
    assert whole.record.rates == first.record.rates + second.record.rates
    trainers.check_same(trainers.copy_weights(whole.model), trainers.copy_weights(second.model))
