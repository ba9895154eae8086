"""``ReduceLROnPlateau``: the same decisions as torch's, to the bit."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import layered_lr.schedules as ls
from layered_lr.errors import SpecError

SETTINGS = [
    dict(
        zip(
            ("mode", "threshold_mode", "patience", "cooldown", "min_lr", "factor", "threshold", "eps"), one, strict=True
        )
    )
    for one in itertools.product(
        ("min", "max"), ("rel", "abs"), (0, 3), (0, 2), (0.0, 1e-3), (0.1, 0.7), (1e-4, 0.3), (1e-8, 5e-3)
    )
]


@pytest.mark.parametrize("seed", range(4))
def test_every_decision_is_torchs(seed):
    rng = np.random.default_rng(seed)
    for settings in SETTINGS:
        lrs = np.exp(rng.uniform(np.log(1e-5), 0, 5)).tolist()
        optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs])
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
        ours = [ls.ReduceLROnPlateau(**settings).start_reaction(lr) for lr in lrs]
        for count, metric in enumerate(np.cumsum(rng.normal(-0.02, 0.2, 40)).tolist()):
            metric = (metric, np.nan, np.inf, -np.inf)[rng.choice(4, p=[0.94, 0.02, 0.02, 0.02])]
            theirs.step(metric)
            assert [one.step(metric) for one in ours] == [group["lr"] for group in optimizer.param_groups]
            if count == 20:  # a resume in the middle changes nothing
                states = [json.loads(json.dumps(one.state())) for one in ours]
                ours = [ls.ReduceLROnPlateau(**settings).start_reaction(0.5) for _ in lrs]
                for one, state in zip(ours, states, strict=True):
                    one.restore(state)


def test_it_is_planned_at_lr_and_may_follow_a_warmup():
    plateau = ls.ReduceLROnPlateau(patience=0)
    assert plateau(np.arange(3), 0.1).tolist() == [0.1] * 3
    warm = ls.Warmup(10, plateau)
    reaction = warm.start_reaction(0.1)
    assert (warm(5, reaction.rate), warm(10, reaction.rate)) == (0.05, 0.1)
    for metric in (1.0, torch.tensor(2.0)):
        reaction.step(metric)
    assert warm(10, reaction.rate) == 0.1 * 0.1
    assert warm.then.unit == "epoch"
    assert ls.StepLR(3).start_reaction(0.1) is None
    for kind, more in ((ls.SequentialLR, [[]]), (ls.ChainedScheduler, [])):
        with pytest.raises(
            SpecError, match=r"schedulers\[0\] is a ReduceLROnPlateau, whose rate is decided during training"
        ):
            kind([plateau], *more)


def test_a_mode_left_out_is_the_one_that_fits_the_metric():
    assert ls.ReduceLROnPlateau() == ls.ReduceLROnPlateau("min")
    assert ls.ReduceLROnPlateau(metric="accuracy") == ls.ReduceLROnPlateau("max", metric="accuracy")
    assert ls.ReduceLROnPlateau(metric="math:sqrt").mode == "min"
    reaction = ls.ReduceLROnPlateau(metric="accuracy", patience=0).start_reaction(1.0)
    assert [reaction.step(accuracy) for accuracy in (0.5, 0.7, 0.6)] == [1.0, 1.0, 0.1]
    with pytest.raises(SpecError, match=r"a higher accuracy is better.*Give mode='max'"):
        ls.ReduceLROnPlateau("min", metric="accuracy")
    with pytest.raises(SpecError, match="metric='loss', mode='max'"):
        ls.ReduceLROnPlateau("max", metric="loss")
    assert ls.ReduceLROnPlateau("max") == ls.ReduceLROnPlateau(metric="accuracy"), "as whoever says 'max' means it"
    assert ls.ReduceLROnPlateau("min").metric == ls.ReduceLROnPlateau().metric == "loss"
    assert ls.ReduceLROnPlateau("max", metric="math:sqrt").mode == "max"
    with pytest.raises(SpecError, match=r"metric='acuracy'\): say whether .* Did you mean 'accuracy'"):
        ls.ReduceLROnPlateau(metric="acuracy")
    assert ls.ReduceLROnPlateau("max", metric="top3").metric == "top3"
    with pytest.raises(SpecError, match="metric must be 'loss', 'accuracy', the name of a metric of the run"):
        ls.ReduceLROnPlateau("max", metric=" ")
    with pytest.raises(SpecError, match="mode must be one of 'min' or 'max'"):
        ls.ReduceLROnPlateau("lowest")


@pytest.mark.parametrize("metric", ["0.5", None, [1, 2], 1j, b"1"])
def test_a_metric_must_be_a_number(metric):
    with pytest.raises(SpecError, match="a metric must be a number"):
        ls.ReduceLROnPlateau().start_reaction(0.1).step(metric)


def test_a_state_must_be_whole():
    reaction = ls.ReduceLROnPlateau().start_reaction(0.1)
    for state in ({}, {**reaction.state(), "more": 1}, {**reaction.state(), "best": "x"}):
        with pytest.raises(SpecError, match="its state must have the numbers rate, best"):
            reaction.restore(state)
