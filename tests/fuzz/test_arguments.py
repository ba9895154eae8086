"""Random arguments of every public class and function, and of the methods of plans and schedules."""

import inspect
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.schedules import SCHEDULES
from layered_lr.training.options import RunOptions
from tests.support.fuzz import OBJECTS, Target, hold, junk, or_junk
from tests.support.fuzz_specs import PARAMETERS, fields_of, groups, lengths, made, phases, schedules, specs

VALUES = [
    *OPTIMIZERS.values(),
    *SCHEDULES.values(),
    *(
        ll.Group,
        ll.Phase,
        ll.Checkpoints,
        ll.Divergence,
        ll.EarlyStop,
        ll.Precision,
        ll.InitialWeights,
        ll.Sizes,
        ll.CrossEntropy,
        ll.LossFunction,
        ll.Mix,
    ),
]
parameters = st.one_of(
    st.just(PARAMETERS),
    st.lists(st.tuples(or_junk(st.sampled_from("abc")), or_junk(st.lists(st.integers(0, 3), max_size=2))), max_size=3),
)
steps = or_junk(st.one_of(st.integers(0, 9), st.lists(st.integers(0, 9), max_size=4)))
rate = or_junk(st.floats(0, 2))


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files may be written."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_value_class(kind: Any) -> None:
    hold(fields_of(kind), 12)


def adopt_of_a_recipe(**given: Any) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 2)
    assert str(ll.adopt(torch.optim.SGD(net.parameters(), lr=0.1), net, **given))


def audit_of_a_recipe(**given: Any) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(2, 2)
    audit = ll.audit(torch.optim.SGD(net.parameters(), lr=0.1), net, **given)
    assert str(audit) and audit.to_json()


@cache
def a_result() -> ll.Result:
    torch = pytest.importorskip("torch")
    pixels, labels = np.zeros((8, 4, 4, 3), np.uint8), np.arange(8) % 2
    return ll.run(
        ll.Spec(ll.SGD(0.1)),
        model=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)),
        data=(pixels, labels, pixels, labels),
        epochs=1,
        batch_size=4,
        progress=False,
    )


def predict_of_a_result(images: Any, **given: Any) -> None:
    predictions = a_result().predict(images, **given)
    assert str(predictions) and predictions.to_json() and len(predictions.names) == len(predictions)


FUNCTIONS = [
    Target("Spec", ll.Spec, {"optimizer": junk}),
    Target(
        "Spec of parts",
        ll.Spec,
        {"optimizer": st.just(ll.SGD(0.1))},
        {
            "groups": or_junk(groups),
            "schedule": or_junk(schedules),
            "phases": or_junk(phases),
            "no_weight_decay": junk,
            "clip_grad_norm": junk,
            "clip_grad_value": junk,
            "clip_per_group": junk,
            "layer_decay": junk,
        },
    ),
    Target("Spec.from_toml", ll.Spec.from_toml, {"text_or_path": junk}),
    Target("Spec.from_dict", ll.Spec.from_dict, {"table": junk}),
    Target("load_recipe", ll.load_recipe, {"name_or_path": junk}),
    Target("load_dataset", ll.load_dataset, {"data": junk}, {"data_root": junk, "image_size": junk}),
    Target("Samples", ll.Samples, {"train": junk}, {"test": junk, "size": junk, "share": junk, "class_names": junk}),
    Target("Transform", ll.Transform, {"transform": junk}),
    Target(
        "ImageFolder",
        ll.ImageFolder,
        {"folder": junk},
        dict.fromkeys(
            ("size", "fit", "grey", "share", "seed", "test_folder", "broken", "augment", "workers", "memory_bytes"),
            junk,
        ),
    ),
    Target(
        "Dataset", ll.Dataset, {"name": st.just("x"), **dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), junk)}
    ),
    Target(
        "where",
        lambda patterns, **given: ll.where(*patterns, **given),
        {"patterns": st.lists(junk, max_size=2)},
        dict.fromkeys(("type", "ndim", "shape", "bias", "norm", "depth"), junk),
    ),
    Target("where and", lambda one, other: ll.where("a") & one | other, {"one": junk, "other": junk}),
    Target("layer_decay", ll.layer_decay, {"model": or_junk(parameters)}, {"decay": or_junk(rate), "layers": junk}),
    Target(
        "discriminative",
        ll.discriminative,
        {"parts": or_junk(st.lists(junk, max_size=3)), "lr": or_junk(st.builds(slice, rate, rate))},
    ),
    Target("head_first", ll.phases.head_first, {}, {"until": junk, "head": junk}),
    Target("gradual_unfreeze", ll.phases.gradual_unfreeze, {"order": junk}, {"every": junk}),
    Target("freeze_for_good", lambda what: ll.phases.freeze_for_good(what), {"what": junk}),
    Target("resolve anything", ll.resolve, {"spec": or_junk(specs), "parameters": junk}, {"total_steps": junk}),
    Target("plan", ll.plan, {}, dict.fromkeys(("spec", "model", "data", "data_root", "epochs", "batch_size"), junk)),
    Target(
        "plan of a loop", ll.plan, {}, dict.fromkeys(("total_steps", "steps_per_epoch", "epochs", "max_steps"), junk)
    ),
    Target("run", lambda **given: ll.run(progress=False, **given), {"data": junk, "model": junk}, {"epochs": junk}),
    Target(
        "options of a model",
        lambda **given: RunOptions(**given),
        {},
        dict.fromkeys(("model", "dropout", "pretrained", "head", "initialise", "image_size"), junk),
    ),
    Target("compare", ll.compare, {"backends": junk}, dict.fromkeys(("steps", "samples", "data"), junk)),
    Target("resume", ll.resume, {"path": junk}, {"epochs": junk, "model": junk, "wild": junk}),
    Target(
        "find_lr",
        lambda **given: ll.find_lr(**{"data": "none.npz", **given}),
        {"start": junk, "steps": junk},
        dict.fromkeys(("end", "group", "phase", "seeds", "smoothing", "stop_factor", "data", "model", "wild"), junk),
    ),
    Target(
        "find_lr of a loop",
        ll.find_lr,
        {"spec": or_junk(specs), "model": junk, "batches": junk},
        dict.fromkeys(("loss_fn", "batch_loss", "total_steps", "steps"), junk),
    ),
    Target(
        "overfit",
        lambda **given: ll.overfit(**{"data": "none.npz", **given}),
        {"batches": junk, "steps": junk},
        dict.fromkeys(("target", "data", "model", "spec", "wild"), junk),
    ),
    Target("RateSearch.load", ll.RateSearch.load, {"path": junk}),
    Target("RateSearch.from_dict", ll.RateSearch.from_dict, {"table": junk}),
    Target("compile", ll.compile, {"spec": junk, "model": junk}, {"total_steps": junk}),
    Target("param_groups", ll.param_groups, {"spec": junk, "model": junk}),
    Target("scheduler", ll.scheduler, {"spec": junk, "optimizer": junk, "model": junk}, {"total_steps": junk}),
    Target("adopt", ll.adopt, {"optimizer": junk, "model": junk}, {"scheduler": junk, "unit": junk}),
    Target("adopt of a recipe", adopt_of_a_recipe, {}, dict.fromkeys(("scheduler", "unit"), junk)),
    Target("audit", ll.audit, {"optimizer": junk, "model": junk}, {"scheduler": junk, "steps": junk, "ema": junk}),
    Target("audit of a recipe", audit_of_a_recipe, {}, dict.fromkeys(("scheduler", "steps", "ema", "clipped"), junk)),
    Target("translate", ll.translate, {"module": junk}, {"example": junk}),
    Target("CSV", ll.CSV, {"path": junk}, {"grad_norms": junk}),
    Target("JSONLines", ll.JSONLines, {"path": junk}, {"grad_norms": junk}),
    Target(
        "TensorBoard",
        ll.TensorBoard,
        {"folder": junk},
        dict.fromkeys(("histograms", "wrong_answers", "grad_norms"), junk),
    ),
    Target("WandB", ll.WandB, {"project": junk}, dict.fromkeys(("name", "mode", "folder"), junk)),
    Target("MLflow", ll.MLflow, {}, dict.fromkeys(("experiment", "name", "folder"), junk)),
    Target("a log", lambda log: RunOptions(log=log), {"log": junk}),
    Target("list_runs", ll.list_runs, {"folder": junk}),
    Target("report", ll.report, {"runs": junk}, {"path": junk, "trust": junk}),
    Target("sweep", ll.sweep, {"recipe": junk, "into": junk}, {"jobs": junk, "trust": junk}),
    Target("save_state", ll.save_state, {"path": junk, "model": junk, "optimizer": junk}),
    Target(
        "load_state", ll.load_state, {"source": junk, "model": junk, "optimizer": junk}, {"names": junk, "step": junk}
    ),
    Target("Result.load", ll.Result.load, {"path": junk}, {"checkpoint": junk}),
    Target("Result.predict", predict_of_a_result, {"images": junk}),
    Target(
        "Result.predict of an image",
        lambda **given: predict_of_a_result(np.zeros((4, 4, 3), np.uint8), **given),
        {},
        dict.fromkeys(("top_k", "batch_size", "backend", "weights", "model", "device"), junk),
    ),
    Target(
        "Result.evaluate",
        lambda **given: a_result().evaluate(**given),
        {},
        dict.fromkeys(
            ("data", "data_root", "batch_size", "backend", "weights", "model", "device", "loss", "metrics"), junk
        ),
    ),
    Target(
        "Predictions.save",
        lambda folder: ll.Predictions(np.zeros((1, 2)), ("0",), ("a", "b"), 1, "torch-eager", "last", "values").save(
            folder
        ),
        {"folder": junk},
    ),
    Target(
        "Result.export",
        lambda **given: a_result().export(**given),
        {"path": junk},
        dict.fromkeys(("format", "weights", "normalise", "check", "overwrite", "model"), junk),
    ),
    Target("Result.card", lambda **given: a_result().card(**given), {"path": junk}, {"overwrite": junk}),
    Target(
        "Predictions.to_csv",
        lambda path: a_result().predict(np.zeros((4, 4, 3), np.uint8)).to_csv(path),
        {"path": junk},
    ),
    Target(
        "plan_from_dict",
        lambda table: ll.plan_from_dict({**PLAN.to_dict(), **table}),
        {
            "table": st.fixed_dictionaries(
                {}, optional=dict.fromkeys(("spec", "parameters", "total_steps", "steps_per_epoch"), junk)
            )
        },
    ),
]
PLAN = ll.resolve(ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("body")], ll.CosineDecay()), PARAMETERS, 9, 3)
METHODS = [
    Target("Plan.lr", PLAN.lr, {"step": junk}),
    Target("Plan.rates", PLAN.rates, {"step": junk}),
    Target(
        "Plan.table",
        PLAN.table,
        {},
        {"start": or_junk(st.integers(0, 9)), "stop": st.one_of(st.integers(-1, 99), st.sampled_from(OBJECTS))},
    ),
    Target("Plan.at", PLAN.at, {"steps": steps}),
    Target("Plan.diff", PLAN.diff, {"other": junk}),
    Target("Plan.lowering", PLAN.lowering, {"backend": junk}),
    Target("Plan.to_csv", PLAN.to_csv, {"path": junk}),
    Target("Plan.plot", PLAN.plot, {"scale": junk}),
]


@pytest.mark.parametrize("target", [*FUNCTIONS, *METHODS], ids=lambda target: target.name)
def test_a_function(target: Target) -> None:
    hold(target, 12)


@pytest.mark.parametrize("kind", SCHEDULES.values(), ids=lambda kind: kind.__name__)
def test_the_rates_of_a_schedule(kind: Any) -> None:
    def rates(schedule: ll.Schedule, step: Any, lr: Any, length: Any) -> None:
        str(schedule)
        bound = schedule.bind(5)
        bound(step, lr)
        bound.rates([0, 1, 2], [0.1, 0.2])
        bound.momentum(step)
        ll.Spec(ll.SGD(0.1, momentum=0.9), schedule=schedule).to_dict()

    hold(Target(kind.__name__, rates, {"schedule": made(kind), "step": steps, "lr": rate, "length": lengths}), 8)


def test_a_plan_of_any_spec() -> None:
    def show(spec: ll.Spec, parameters: Any, total: Any, per_epoch: Any) -> None:
        plan = ll.resolve(spec, parameters, total, per_epoch)
        assert str(plan) and plan.diff(plan) is not None and plan == plan
        for backend in ("torch-eager", "oneflow-eager", "oneflow-graph"):
            try:
                plan.lowering(backend)
            except ll.LayeredLRError:
                continue
        if total is not None and total < 100:
            table = plan.table()
            assert np.isfinite(table).all() and (table >= 0).all()
            plan.to_csv()
        plan.momenta(0)

    hold(Target("a plan", show, {"spec": specs, "parameters": parameters, "total": lengths, "per_epoch": lengths}), 25)


def test_every_public_name_is_a_target() -> None:
    called = {each.name.split(" ")[0].split(".")[0] for each in FUNCTIONS} | {kind.__name__ for kind in VALUES}
    made_by_us = {
        "Audit",
        "Finding",
        "Plan",
        "PlanGroup",
        "PlanDiff",
        "RateSuggestion",
        "OverfitVerdict",
        "Result",
        "RunList",
        "RunSummary",
        "Sweep",
        "Recipe",
        "Comparison",
        "Evaluation",
        "Export",
        "Predictions",
        "Parameter",
        "BackendStatus",
        "Callback",
        "Where",
    }
    elsewhere = {
        "attach",
        "backends",
        "ready_recipes",
        "Optimizer",
        "Schedule",
    }  # a graph is made in a process of its own
    public = {
        name
        for name in ll.__all__
        if callable(getattr(ll, name))
        and not (inspect.isclass(getattr(ll, name)) and issubclass(getattr(ll, name), Exception))
    }
    assert public - called <= made_by_us | elsewhere
