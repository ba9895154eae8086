"""The plan: every rate of the run against torch's StepLR, as a table, as text, and saved."""

import copy
import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr as ll

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=60)
PARAMETERS = [("stem.weight", (4, 3)), ("body.0.weight", (4, 4)), ("body.1.weight", (4, 4)), ("head.weight", (2, 4))]
# One product and one power in float64 on either side: a few units in the last place (1e-16 each) apart.
EXACT = {"rtol": 1e-12, "atol": 0}


def example(**lengths: int) -> ll.Plan:
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9),
        [
            ll.Group("stem", lr_scale=0.1, name="début"),
            ll.Group("nothing", optional=True),
            ll.Group(["body.0", "no.such"], lr=0.3, schedule=ll.StepLR(2, gamma=0.5, unit="epoch"), weight_decay=0),
            ll.Group("head", schedule=ll.Constant()),
        ],
        schedule=ll.StepLR(3, gamma=0.7),
    )
    return ll.resolve(spec, [*PARAMETERS[:3], (*PARAMETERS[3], ("tied.weight",))], **lengths)


@FIXED
@given(
    lr=st.floats(1e-6, 10), own=st.floats(1e-6, 10), scales=st.tuples(*[st.floats(0, 100)] * 2),
    steps=st.tuples(*[st.integers(1, 30)] * 2),
    gammas=st.tuples(*[st.floats(0.05, 1.2)] * 2), per_epoch=st.integers(1, 9),
)  # fmt: skip
def test_every_rate_is_lr_scale_times_torchs(
    torch_steplr: Any, lr: float, own: float, scales: Any, steps: Any, gammas: Any, per_epoch: int
) -> None:
    by_epoch = ll.StepLR(steps[1], gamma=gammas[1], unit="epoch")
    stem, body = ll.Group("stem", lr_scale=scales[0]), ll.Group("body", lr=own, lr_scale=scales[1], schedule=by_epoch)
    plan = ll.resolve(
        ll.Spec(ll.SGD(lr), [stem, body], ll.StepLR(steps[0], gamma=gammas[0])), PARAMETERS, 60, per_epoch
    )
    shared = np.array(torch_steplr(lr, steps[0], gammas[0], range(60)))
    epochs = np.array(torch_steplr(own, steps[1], gammas[1], [step // per_epoch for step in range(60)]))
    expected = np.stack([scales[0] * shared, scales[1] * epochs, shared], axis=1)
    np.testing.assert_allclose(plan.table(), expected, **EXACT)
    for step in (0, 1, 29, 59):
        assert plan.lr(step) == dict(zip(["stem", "body", "rest"], plan.table(step, step + 1)[0].tolist(), strict=True))


def test_epochs_as_torch_counts_them_in_a_loop(torch: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    applied = []
    for _epoch in range(7):
        for _batch in range(5):
            applied.append(scheduler.get_last_lr())
            optimizer.step()
        scheduler.step()
    spec = ll.Spec(ll.SGD(0.3), schedule=ll.StepLR(2, gamma=0.5, unit="epoch"))
    np.testing.assert_allclose(ll.resolve(spec, PARAMETERS, 35, 5).table(), applied, **EXACT)


def test_the_table_is_float64_in_the_order_of_the_groups() -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    table = plan.table()
    assert table.dtype == np.float64 and table.shape == (10, 5)
    assert [group.name for group in plan.groups] == ["début", "nothing", "body.0, no.such", "head", "rest"]
    assert list(plan.lr(4)) == [group.name for group in plan.groups]
    assert list(plan.lr(4).values()) == table[4].tolist() and all(type(rate) is float for rate in plan.lr(4).values())


def test_parts_of_the_table() -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    whole = plan.table()
    for start, stop in ((0, 0), (10, 10), (3, 7), (9, 10), (0, 10)):
        assert np.array_equal(plan.table(start, stop), whole[start:stop])
    assert np.array_equal(plan.table(6), whole[6:]) and np.array_equal(plan.table(stop=4), whole[:4])
    assert np.array_equal(plan.table(np.int64(2), np.uint8(4)), whole[2:4])


def test_the_table_is_the_callers_own() -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    plan.table()[:] = 7
    plan.lr(0)["head"] = 7
    assert not (plan.table() == 7).any() and plan.lr(0)["head"] == 0.1


def test_steps_beyond_the_end_go_on() -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    assert plan.lr(12)["rest"] == pytest.approx(0.1 * 0.7**4, rel=1e-12)
    assert np.array_equal(plan.table(8, 20)[:2], plan.table()[8:]) and plan.table(8, 20).shape == (12, 5)
    assert plan.lr(2**40)["head"] == 0.1


def test_a_run_of_unknown_length() -> None:
    plan = example(steps_per_epoch=2)
    assert plan.table(0, 4).shape == (4, 5) and plan.lr(100)["head"] == 0.1
    with pytest.raises(ll.SpecError, match=r"table\(stop.*total_steps"):
        plan.table()
    assert "length unknown" in str(plan) and "?" in str(plan)


def test_a_run_of_no_steps() -> None:
    assert example(total_steps=0, steps_per_epoch=1).table().shape == (0, 5)


@pytest.mark.parametrize("step", [-1, 1.0, 0.5, True, np.True_, "3", None, float("nan"), [1], np.array([1, 2])])
def test_a_step_is_a_whole_number(step: Any) -> None:
    with pytest.raises(ll.SpecError, match="step"):
        example(steps_per_epoch=2).lr(step)


@pytest.mark.parametrize(
    "bounds", [(-1, 3), (4, 3), (11,), (0.5, 2), (0, 2.5), ("0", "3"), (0, float("nan")), (True, 3)]
)
def test_bounds_of_the_table_are_whole_numbers_in_order(bounds: Any) -> None:
    with pytest.raises(ll.SpecError, match="table"):
        example(total_steps=10, steps_per_epoch=2).table(*bounds)


def test_epochs_need_their_length() -> None:
    with pytest.raises(ll.SpecError, match=r"'body.0, no.such'.*unit='epoch'.*steps_per_epoch"):
        example(total_steps=10)
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("*", schedule=ll.Constant())], ll.StepLR(2, unit="epoch"))
    assert ll.resolve(spec, PARAMETERS).lr(0) == {"*": 0.1}, "no group is left that counts epochs"


def test_the_text_shows_all_that_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # room for all columns beside each other
    lines = str(example(total_steps=1000, steps_per_epoch=100)).splitlines()
    head = next(line for line in lines if line.startswith("group"))
    for column in ("parameters", "elements", "lr", "lr_scale", "schedule", "first", "last", "oneflow-graph"):
        assert column in head, column
    row = {line.split("  ")[0]: line for line in lines}
    for words in (
        ["début", "1", "12", "0.1", "StepLR", "step_size=3", "gamma=0.7", "0.01", "native"],
        ["nothing", "0"],
        ["body.0, no.such", "16", "0.3", "StepLR", "epoch", "0.01875"],
        ["head", "8", "Constant", "0.1"],
        ["rest", "16"],
    ):
        assert all(word in row[words[0]] for word in words), words
    text = "\n".join(lines)
    assert "SGD" in lines[0] and "1,000" in lines[0] and "100" in lines[0] and "momentum=0.9" in lines[0]
    assert "tied.weight" in text and "no.such" in text.split("note:", 1)[1], "tied weights and idle patterns are noted"


def test_a_group_that_changes_the_optimizer_shows_it_in_the_text() -> None:
    spec = ll.Spec(ll.SGD(0.1, weight_decay=0.25), [ll.Group("stem", weight_decay=0.125)])
    assert "0.125" in str(ll.resolve(spec, PARAMETERS))


@pytest.mark.parametrize("backend", ["torch-eager", "torch-compile", "oneflow-eager", "oneflow-graph"])
def test_each_backends_lowering_is_told(backend: str) -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    lowering = plan.lowering(backend)
    assert list(lowering) == [group.name for group in plan.groups]
    assert all(("native" if backend == "oneflow-graph" else "multiplied in") in text for text in lowering.values())
    with pytest.raises(ll.SpecError, match=r"oneflow_graph.*Did you mean 'oneflow-graph'"):
        plan.lowering("oneflow_graph")


@pytest.mark.parametrize("lengths", [{"steps_per_epoch": 2}, {"total_steps": 10, "steps_per_epoch": 3}])
def test_a_plan_is_saved_and_compared(lengths: dict[str, int]) -> None:
    plan = example(**lengths)
    again = ll.plan_from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and hash(again) == hash(plan) and str(again) == str(plan) and again.notes == plan.notes
    assert pickle.loads(pickle.dumps(plan)) == plan == copy.deepcopy(plan)
    assert example(steps_per_epoch=4) != plan != dataclasses.replace(plan, total_steps=11)


def test_nothing_of_a_plan_can_be_changed() -> None:
    plan = example(total_steps=10, steps_per_epoch=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.total_steps = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.groups[0].lr_scale = 3.0  # type: ignore[misc]
    assert plan.group_of == {"stem.weight": 0, "body.0.weight": 2, "head.weight": 3, "body.1.weight": 4}
