"""The public functions as a user meets them: what ``run`` and ``plan`` refuse, and what ``plan`` answers."""

import inspect
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.api import plan, run
from layered_lr.training.option import options_of
from layered_lr.training.options import RunOptions

SPEC = ll.Spec(ll.SGD(0.1), [ll.Group("features", lr_scale=0.1)])
NO_COUNT = [0, -1, 1.0, 2.5, True, "3", float("nan"), float("inf"), [1], np.float64(2)]


def arrays(train: int = 8, classes: int = 3) -> dict[str, Any]:
    x = np.zeros((train + 4, 3, 8, 8), np.float32)
    y = np.arange(train + 4) % classes
    return {"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}


@pytest.mark.parametrize("first", ["resolve", "Plan", "run", "compile", "plan", "load_recipe"])
def test_plan_is_a_function_whatever_was_imported_before(first: str) -> None:
    """A module of the package with the function's name would take its place as soon as anything imports it."""
    code = f"import layered_lr as ll; ll.{first}; assert callable(ll.plan), ll.plan"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_the_public_names() -> None:
    assert set(ll.__all__) <= set(dir(ll)) and ll.__version__.count(".") == 2
    for name in ll.__all__:
        assert getattr(ll, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'Sgd'"):
        ll.Sgd  # noqa: B018


def test_every_error_is_a_layered_lr_error_and_of_its_conventional_kind() -> None:
    kinds = {
        ll.SpecError: ValueError, ll.DataError: ValueError, ll.CheckpointError: ValueError,
        ll.BackendUnavailable: ImportError, ll.Unsupported: NotImplementedError, ll.TrainingDiverged: ArithmeticError,
        ll.ProcessLost: RuntimeError,
        ll.CallbackError: RuntimeError, ll.ToolUnavailable: ImportError,
    }  # fmt: skip
    for error, convention in kinds.items():
        assert issubclass(error, ll.LayeredLRError) and issubclass(error, convention)


def test_run_takes_each_option_and_nothing_else() -> None:
    defaults = {name: p.default for name, p in inspect.signature(run).parameters.items() if name != "spec"}
    assert defaults == {name: declared.default for name, declared in options_of(RunOptions).items()}


WRONG: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name in ("epochs", "max_steps", "batch_size") for value in NO_COUNT),
    ({"batch_size": None}, "batch_size"),
    *(({"seed": value}, "seed") for value in (-1, 1.5, True, None, "0", float("inf"), 2**64, 10**30)),
    *(({"dropout": value}, "dropout") for value in (-0.1, 1.1, float("nan"), float("inf"), True, {}, {"a": 2}, "0.2")),
    *(({"augment": value}, "augment") for value in (0, 1, "yes", 0.5)),
    *(({"progress": value}, "progress") for value in (0, None, "no")),
    *(({"device": value}, "device") for value in (None, 0, "tpu", "")),
    *(({"backend": value}, "backend") for value in (None, 3, "", "torch", "Torch-Eager", ["torch-eager"])),
    *(
        ({"model": value}, "model")
        for value in (None, 3, "", "resnet81", "mobilenet_v3", "nowhere:build", ":", "os:path")
    ),
    *(
        ({"model": value}, "model")
        for value in (".relative:build", "os:", "layered_lr.errors:nothing", ["mobilenet_v2"])
    ),
    *(({"data": value}, "data") for value in (None, 3, "", "mnist", "Digits", [], ("a", "b"), {"x_train": 1})),
    *(({"data_root": value}, "data_root") for value in (3, ["."], b".")),
    *(({"initial_weights": value}, "initial_weights") for value in (3, "", "weights.txt", "missing.npz", [1])),
    *(
        ({"initial_weights": {"source": "w.npz", "reset": value}}, "reset")
        for value in (3, None, "", [""], [3], ["re:*"], {"a": 1})
    ),
    *(({"checkpoints": value}, "checkpoints") for value in (3, ["runs/a"], True)),
    *(({"divergence": value}, "divergence") for value in (3, None, True)),
    *(({"precision": value}, "precision") for value in (3, None, "float8", "double")),
    *(({"ema_decay": value}, "ema_decay") for value in (-0.1, 1.0, "0.9", True, float("nan"))),
    *(({"accumulate_steps": value}, "accumulate_steps") for value in NO_COUNT),
    *(({"save": value}, "save") for value in (3, "no/such/folder/x.npz", ".")),
]


@pytest.mark.parametrize(("wrong", "name"), WRONG, ids=[repr(wrong) for wrong, _ in WRONG])
def test_run_refuses_a_wrong_argument_in_one_line(wrong: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises((ll.SpecError, ll.DataError), match=name) as caught:
        run(SPEC, **{"data": arrays(), "batch_size": 4, "max_steps": 1, "progress": False, **wrong})
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("spec", [3, "backbone-and-head", ll.SGD(0.1), ll.Group("a"), {"optimizer": {}}])
def test_run_and_plan_refuse_what_is_no_spec(spec: Any) -> None:
    for function in (run, plan):
        with pytest.raises(ll.SpecError, match="spec"):
            function(spec, data=arrays(), batch_size=4)


@pytest.mark.parametrize("name", ["epochs", "max_steps", "batch_size"])
@pytest.mark.parametrize("value", NO_COUNT, ids=repr)
def test_plan_refuses_what_run_refuses(name: str, value: Any) -> None:
    with pytest.raises(ll.SpecError, match=name):
        plan(SPEC, **{name: value})


def test_plan_refuses_wrong_models_and_data() -> None:
    for wrong, error in (
        ({"model": "mobilenet"}, "Did you mean 'mobilenet_v2'"),
        ({"model": lambda: 3}, "model"),
        ({"model": int}, "model"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"batch_size": 1438}, "1437"),
        ({"data": {**arrays(), "x_train": np.zeros((8, 3))}}, "x_train"),
    ):
        with pytest.raises((ll.SpecError, ll.DataError), match=error):
            plan(SPEC, **wrong)


def test_a_spec_that_does_not_fit_is_refused_before_a_framework_is_loaded() -> None:
    code = (
        "import sys, layered_lr as ll\n"
        "try:\n    ll.run(ll.Spec(ll.SGD(0.1), [ll.Group('feature')]))\n"
        "except ll.SpecError as error:\n    assert \"'features'\" in str(error), error\n"
        "else:\n    sys.exit('no error')\n"
        "assert not {'torch', 'oneflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("lengths", "total", "per_epoch"),
    [
        ({}, 132, 22),
        ({"epochs": 1}, 22, 22),
        ({"epochs": 10, "max_steps": 7}, 7, 22),
        ({"max_steps": 1000}, 1000, 22),
        ({"epochs": 1, "max_steps": 1000}, 22, 22),
        ({"epochs": 2, "batch_size": 1437}, 2, 1),
        ({"epochs": 3, "batch_size": np.int64(100)}, 42, 14),
        ({"data": "cifar10", "epochs": 10}, 7810, 781),
    ],
)
def test_the_lengths_of_a_plan(lengths: dict[str, Any], total: int, per_epoch: int) -> None:
    made = plan(SPEC, **lengths)
    assert (made.total_steps, made.steps_per_epoch) == (total, per_epoch)
    assert made.table().shape == (total, 2)


def test_a_plan_of_the_default_recipe() -> None:
    made = plan()
    assert [(group.name, len(group.parameters)) for group in made.groups] == [("backbone", 156), ("head", 2)]
    table = made.table()
    assert table[0].tolist() == pytest.approx([0.01, 0.1]) and table[-1].tolist() == pytest.approx([0.001, 0.01])
    assert made == plan(ll.load_recipe("backbone-and-head").spec)


@pytest.mark.parametrize("classes", [2, 7])
def test_the_number_of_classes_is_the_datas(classes: int) -> None:
    made = plan(SPEC, data=arrays(classes=classes), batch_size=4, epochs=2)
    assert made.parameters[-2:] == (
        ll.Parameter("classifier.1.weight", (classes, 1280)), ll.Parameter("classifier.1.bias", (classes,))
    )  # fmt: skip
    assert made.total_steps == 4


def test_a_plan_of_a_model_and_of_what_builds_it(torch: Any) -> None:
    def build() -> Any:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))

    spec = ll.Spec(ll.SGD(0.1), [ll.Group("1.weight", lr_scale=2)])
    made, from_callable = (plan(spec, model=m, data=arrays(), batch_size=4, epochs=2) for m in (build(), build))
    assert made == from_callable and made.lr(0) == {"1.weight": 0.2, "rest": 0.1}


def test_the_ways_to_give_data_agree(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays())
    given = (
        arrays(),
        tuple(arrays().values()),
        tmp_path / "mine.npz",
        str(tmp_path / "mine.npz"),
        ll.Dataset("x", **arrays()),
    )
    plans = [plan(SPEC, data=data, batch_size=4) for data in given]
    assert all(one == other for one, other in itertools.pairwise(plans))


@pytest.mark.parametrize("model", [None, 3, "mobilenet_v2", object(), int])
def test_compile_and_attach_take_models_only(model: Any) -> None:
    with pytest.raises(ll.SpecError, match="model"):
        ll.compile(SPEC, model)
    with pytest.raises(ll.SpecError, match="model"):
        ll.attach(SPEC, None, model)
