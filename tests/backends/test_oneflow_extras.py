"""Clipping, gradient norms, accumulation, moving averages and float64 on OneFlow, against torch doing it by hand."""

from __future__ import annotations

import functools
import json
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Extras
from tests.support.extras_cases import CASES, CLASSES, PART, all_by_session, by_hand, net
from tests.support.graph_process import run_each
from tests.support.isolation import value_of, values_of
from tests.support.models import arrays

NAMES = ("oneflow-eager", "oneflow-graph")
Answers = dict[str, dict[str, dict[str, Any]]]

# Eight updates of numbers up to 3, each a sum of up to 18 products: some ten roundings of 2**-24 of it in a row, and
# momentum carries them on. Measured: 2.4e-6 at most in losses and weights, 4.4e-6 in logits.
BOUND = 2e-5
# OneFlow's batch normalisation holds its own momentum, 0.1, as float32 in any dtype: 1.5e-8 of it, at each update.
BOUND_OF_STATISTICS = 2e-6
BOUND64 = 1e-11


@pytest.fixture(scope="module")
def answers(oneflow: Any) -> Answers:
    """Of all cases; a graph trains in a process of its own."""
    return {"oneflow-eager": all_by_session("oneflow-eager"), "oneflow-graph": value_of(_graph_answers)}


def _graph_answers() -> object:
    import warnings

    warnings.simplefilter("error")
    from tests.support.extras_cases import all_by_session

    return all_by_session("oneflow-graph")


@functools.cache
def expected_of(torch: Any, case: str) -> dict[str, Any]:
    return by_hand(torch, CASES[case])


def apart(one: Any, other: Any) -> float:
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        return max(apart(one[name], other[name]) for name in other)
    one, other = np.array(one, np.float64), np.array(other, np.float64)
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_it_trains_as_torch(torch: Any, answers: Answers, name: str, case: str) -> None:
    found, expected = answers[name][case], expected_of(torch, case)
    assert found["weights"]["unused.weight"] == expected["weights"]["unused.weight"].tolist()
    for frozen in CASES[case].frozen:
        assert found["weights"][frozen] == expected["weights"][frozen].tolist()
    double = CASES[case].dtype == "float64"
    for what in found.keys() & expected.keys():
        values, wanted, bound = found[what], expected[what], BOUND64 if double else BOUND
        if double and what in ("logits", "ema logits"):
            bound = BOUND_OF_STATISTICS
        if double and what in ("weights", "ema"):
            statistics = [key for key in wanted if "running" in key]
            assert apart({k: values[k] for k in statistics}, {k: wanted[k] for k in statistics}) < BOUND_OF_STATISTICS
            values = {k: v for k, v in values.items() if k not in statistics}
            wanted = {k: v for k, v in wanted.items() if k not in statistics}
        assert apart(values, wanted) < bound, what


@pytest.mark.parametrize("case", CASES)
def test_a_graph_is_bitwise_as_eager_mode(answers: Answers, case: str) -> None:
    """Also where a graph adds up gradients for an eager optimizer."""
    assert apart(answers["oneflow-graph"][case], answers["oneflow-eager"][case]) == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["infinite", "average", "average, asked for"])
def test_what_only_looks_on_changes_nothing(answers: Answers, name: str, case: str) -> None:
    plain = answers[name]["plain"]
    assert {what: answers[name][case][what] for what in plain} == plain


@pytest.mark.parametrize("name", NAMES)
def test_what_never_clips_changes_nothing(answers: Answers, name: str) -> None:
    """A factor of 1 is exactly that."""
    assert answers[name]["loose"]["weights"] == answers[name]["plain"]["weights"]


@pytest.mark.parametrize("name", NAMES)
def test_the_cases_do_clip_and_average(answers: Answers, name: str) -> None:
    """What is compared with torch above is not the plain training by another name."""
    plain = answers[name]["plain"]["weights"]
    for case in ("global", "per group", "value"):
        assert apart(answers[name][case]["weights"], plain) > 0.01
    assert apart(answers[name]["average"]["ema"], plain) > 0.01
    assert answers[name]["average, decay 0"]["ema"] == plain
    assert np.all(np.array(answers[name]["infinite"]["norms"])[:, 0] == 0), "the empty group has no gradient"


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_the_large_batch(name: str, oneflow: Any) -> None:
    """To float32 rounding: means of 6 terms added up, instead of a mean of 18 (three updates; measured 2e-7)."""
    found = value_of(_accumulated, name)
    assert apart(found[0], found[1]) < 2e-6


def _accumulated(name: str) -> list[dict[str, object]]:
    from dataclasses import replace

    import numpy as np

    from tests.support import extras_cases
    from tests.support.extras_cases import CASES, by_session

    parts = replace(CASES["global"], parts=(3, 3, 3), batch_norm=False)
    found = [by_session(name, parts)]
    whole = [(images, labels) for images, labels in extras_cases.batches(parts)]
    extras_cases.batches = lambda case: whole
    found.append(by_session(name, replace(parts, parts=(1, 1, 1))))
    assert np.isfinite(found[0]["losses"]).all()
    return [{what: each[what] for what in ("losses", "weights")} for each in found]


# A loop of the user's own. The loss is sum(p * g), so that every gradient is what the test says.

GRADIENTS = {
    "long": [[3.0, -4.0], [12.0, 0.0, 0.0]],
    "short": [[0.3, -0.4], [0.0, 0.0, 0.1]],
    "zero": [[0.0, 0.0], [0.0, 0.0, 0.0]],
    "NaN": [[float("nan"), 1.0], [2.0, -3.0, 0.1]],
    "infinite": [[float("inf"), 1.0], [2.0, -3.0, -float("inf")]],
    "too long for float32": [[1e30, 1.0], [2.0, -3.0, 0.1]],
}
CLIPS: dict[str, dict[str, Any]] = {
    "global": {"clip_grad_norm": 1.5},
    "per group": {"clip_grad_norm": 1.5, "clip_per_group": True},
    "value": {"clip_grad_value": 0.5},
    "infinite": {"clip_grad_norm": float("inf")},
    "none": {},
}


def clipped(torch: Any, gradients: list[list[float]], clip: dict[str, Any]) -> list[list[float]]:
    parameters = [torch.zeros(len(values), requires_grad=True) for values in gradients]
    for parameter, values in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(values)
    largest = clip.get("clip_grad_norm", float("inf"))
    for tensors in [[p] for p in parameters] if "clip_per_group" in clip else [parameters]:
        if largest < float("inf"):
            torch.nn.utils.clip_grad_norm_(tensors, largest)
    if "clip_grad_value" in clip:
        torch.nn.utils.clip_grad_value_(parameters, clip["clip_grad_value"])
    return [parameter.grad.tolist() for parameter in parameters]


def _in_a_loop(gradients: dict[str, object], clips: dict[str, object]) -> dict[str, object]:
    """The gradients that one update of a user's own loop applied: eager, with a closure, native and dynamic graph."""
    import warnings

    import layered_lr as ll
    from layered_lr_oneflow.runtime import flow

    warnings.simplefilter("error")

    class Model(flow.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = flow.nn.Parameter(flow.zeros(2))
            self.b = flow.nn.Parameter(flow.zeros(3))
            self.c = flow.nn.Parameter(flow.zeros(2))  # without a gradient
            self.d = flow.nn.Parameter(flow.zeros(0, 2))

        def forward(self, a, b):
            return (self.a * a).sum() + (self.b * b).sum() + self.d.sum()

    class Graph(flow.nn.Graph):
        def __init__(self, spec, model):
            super().__init__()
            self.model = model
            self.scheduler = ll.attach(spec, self, model)

        def build(self, a, b):
            loss = self.model(a, b)
            loss.backward()
            return loss

    def moved(model, update):
        """What was subtracted from each parameter, at a rate of 1; then they are zero again."""
        found = {}
        for name, values in gradients.items():
            update(*(flow.tensor(each) for each in values))
            found[name] = [(-p.detach()).numpy().tolist() for p in (model.a, model.b)]
            assert not model.c.numpy().any()
            with flow.no_grad():
                model.a.zero_()
                model.b.zero_()
        return found

    def eager(spec):
        model = Model()
        optimizer, _ = ll.compile(spec, model)

        def update(a, b):
            optimizer.zero_grad(set_to_none=True)
            model(a, b).backward()
            assert optimizer.step() is None

        return moved(model, update)

    def closure(spec):
        model = Model()
        optimizer, _ = ll.compile(spec, model)

        def update(a, b):
            def loss():
                optimizer.zero_grad(set_to_none=True)
                value = model(a, b)
                value.backward()
                return value

            assert optimizer.step(loss) is not None

        return moved(model, update)

    def graph(spec):
        model = Model()
        return moved(model, Graph(spec, model))

    found = {}
    for clip, settings in clips.items():
        groups = [ll.Group("a"), ll.Group("nothing", optional=True)]
        plain = ll.Spec(ll.SGD(lr=1.0), groups, **settings)
        plateau = ll.Spec(ll.SGD(lr=1.0), groups, ll.ReduceLROnPlateau(), **settings)
        found[clip] = {"eager": eager(plain), "native graph": graph(plain), "dynamic graph": graph(plateau)}
        if clip in ("global", "per group", "value"):
            found[clip]["closure"] = closure(plain)
    return found


@pytest.fixture(scope="module")
def loops(oneflow: Any) -> Any:
    return value_of(_in_a_loop, GRADIENTS, CLIPS)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("loop", ["eager", "closure", "native graph", "dynamic graph"])
def test_a_loop_of_ones_own_clips_as_torch(torch: Any, loops: Any, loop: str, clip: str, gradient: str) -> None:
    if loop not in loops[clip]:
        pytest.skip("OneFlow's own step, untouched")
    expected = clipped(torch, GRADIENTS[gradient], CLIPS[clip])
    for found, wanted in zip(loops[clip][loop][gradient], expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=5e-7)  # a norm and a quotient, each within 2**-23


def test_norms_of_large_parameters_are_exact_to_rounding(oneflow: Any) -> None:
    """OneFlow's own ``vector_norm`` is 4e-4 off here."""
    from layered_lr_oneflow.clipping import GradientClipper

    flow = oneflow
    model = flow.nn.Linear(1280, 1000, bias=False)
    gradient = np.random.default_rng(0).standard_normal((1000, 1280)).astype(np.float32)
    model.weight.grad = flow.tensor(gradient)
    norms = GradientClipper(ll.resolve(ll.Spec(ll.SGD(lr=1.0)), model), model, measures=True).clip()
    np.testing.assert_allclose(norms.numpy(), np.linalg.norm(gradient.astype(np.float64)), rtol=1e-6)


def test_norms_are_kept_beyond_a_block(oneflow: Any) -> None:
    from layered_lr_oneflow.norms import NormHistory

    rows = np.arange(2000.0).reshape(-1, 2)
    tensors = [SimpleNamespace(numpy=lambda row=row: row) for row in rows]
    history = NormHistory(groups=2, ahead=2)
    for tensor in tensors[:600]:
        history.append(tensor)
    assert np.array_equal(history.table(250, 300), rows[250:300])
    for tensor in tensors[600:]:
        history.append(tensor)
    history.append(None)
    assert np.array_equal(history.table(0, 5000), np.vstack([rows, [0, 0]]))
    assert history.table(2000, 3000).shape == (0, 2)


def test_a_spec_that_clips_nothing_leaves_the_optimizer_alone(oneflow: Any) -> None:
    model = oneflow.nn.Linear(2, 2)
    for clip in ({}, {"clip_grad_norm": float("inf")}):
        optimizer, _ = ll.compile(ll.Spec(ll.SGD(lr=1.0), **clip), model)
        assert "layered_lr" not in optimizer.step.__module__


def test_a_graph_that_accumulates_itself_is_refused(oneflow: Any) -> None:
    """OneFlow would clip the parts, silently."""
    body = """
    import layered_lr as ll
    class Accumulating(Train):
        def __init__(self, model, bind):
            super().__init__(model, bind)
            self.config.set_gradient_accumulation_steps(2)
    model = mlp()
    spec = Spec(SGD(lr=0.1), **json.loads(sys.argv[1]))
    try:
        Accumulating(model, lambda graph: ll.attach(spec, graph, model))(*batch(0))
    except ll.Unsupported as error:
        answer(said=str(error))
    """
    for answer in run_each(body, [[json.dumps(CLIPS[clip])] for clip in ("global", "value")]):
        assert "clip each part" in answer["said"]


def _runs(names: list[str], options: dict[str, object]) -> list[dict[str, object]]:
    import layered_lr as ll
    from tests.support.extras_cases import net
    from tests.support.models import arrays

    answers = []
    for name in names:
        from layered_lr_oneflow.runtime import flow

        spec = ll.Spec(ll.SGD(lr=0.1, momentum=0.9), [ll.Group("head", lr_scale=0.5)], clip_grad_norm=0.5)
        run = ll.run(spec, name, lambda: net(flow, True), arrays(), progress=False, device="cpu", **options)
        answers.append(
            {
                "losses": run.losses.tolist(),
                "norms": run.grad_norms.tolist(),
                "group norms": {group: norms.tolist() for group, norms in run.group_grad_norms.items()},
                "accuracies": run.ema_accuracies.tolist(),
                "ema": {group: array.tolist() for group, array in run.ema_weights.items()},
                "batches": int(run.weights["norm.num_batches_tracked"]),
                "ema batches": int(run.ema_weights["norm.num_batches_tracked"]),
            }
        )
    return answers


def test_a_run_with_everything(oneflow: Any) -> None:
    """40 images in batches of 6: six batches an epoch, so updates of four and of two."""
    options = {"epochs": 3, "batch_size": 6, "accumulate_steps": 4, "ema_decay": 0.9}
    eager, graph = value_of(_runs, list(NAMES), options)
    assert eager == graph
    assert len(eager["losses"]) == len(eager["norms"]) == 6
    squares = sum(np.square(norms) for norms in eager["group norms"].values())
    np.testing.assert_allclose(np.sqrt(squares), eager["norms"])
    assert len(eager["accuracies"]) == 3
    assert eager["batches"] == eager["ema batches"] == 18


def test_gradients_that_are_no_numbers_end_a_run(oneflow: Any) -> None:
    """With a rate that blows the weights up, clipped or not, and parts and averages in between."""
    clips = ("global", "value")
    for said in values_of(_diverging, [(list(NAMES), CLIPS[clip]) for clip in clips]):
        assert len(said) == len(NAMES) and all(re.search("the loss is (nan|inf) at step", each) for each in said)


def _diverging(names: list[str], clip: dict[str, float]) -> list[str]:
    import layered_lr as ll
    from tests.support.extras_cases import net
    from tests.support.models import arrays

    said = []
    for name in names:
        from layered_lr_oneflow.runtime import flow

        spec = ll.Spec(ll.SGD(lr=1e38, momentum=0.9), **clip)
        try:
            ll.run(
                spec, name, lambda: net(flow, False), arrays(), epochs=3, batch_size=6, accumulate_steps=2,
                ema_decay=0.9, progress=False, device="cpu",
            )  # fmt: skip
        except ll.TrainingDiverged as error:
            said.append(str(error))
    return said


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_asked_for_is_a_spec_error(oneflow: Any, name: str) -> None:
    backend = load_backend(name, "cpu")
    model = backend.build(lambda: net(oneflow, False), CLASSES, 0.0, 0)
    session = backend.open(ll.resolve(ll.Spec(ll.SGD(lr=0.1)), model), model, CLASSES, Extras())
    images, labels = arrays()[0][:PART], arrays()[1][:PART]
    with pytest.raises(ll.SpecError, match="grad_norms"):
        session.grad_norms(0, 1)
    with pytest.raises(ll.SpecError, match="ema_decay"):
        session.ema_weights()
    with pytest.raises(ll.SpecError, match="ema_decay"):
        session.logits(images, ema=True)
    with pytest.raises(ll.DataError, match="accumulate_steps"):
        session.train_step(images, labels, parts=2)


@pytest.mark.parametrize("name", NAMES)
def test_before_the_first_update_the_average_is_the_weights(oneflow: Any, name: str) -> None:
    backend = load_backend(name, "cpu")
    model = backend.build(lambda: net(oneflow, True), CLASSES, 0.0, 0)
    plan = ll.resolve(ll.Spec(ll.SGD(lr=0.1)), model)
    session = backend.open(plan, model, CLASSES, Extras(ema_decay=0.5, grad_norms=True))
    weights = session.weights()
    assert all(np.array_equal(array, weights[name]) for name, array in session.ema_weights().items())
    images = arrays()[2]
    assert np.array_equal(session.logits(images, ema=True), session.logits(images))
    assert session.grad_norms(0, 9).shape == (0, 1)
