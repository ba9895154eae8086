"""Recipes: the ready ones are what they say, and a wrong one is one line that names the key."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

import layered_lr as ll
from layered_lr.api import plan, run
from layered_lr.training.options import RunOptions

SPEC = '[optimizer]\ntype = "SGD"\nlr = 0.1\n'


def recipe(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


READY = [
    "adamw-fine-tune",
    "backbone-and-head",
    "cosine-warmup",
    "fine-tune",
    "head-first",
    "one-cycle",
    "plateau",
    "rates-by-hand",
    "tutorial-eager",
    "tutorial-graph",
    "warm-restarts",
    "warmup-stable-decay",
]


def test_the_ready_recipes() -> None:
    assert ll.ready_recipes() == READY


@pytest.mark.parametrize("name", READY)
def test_a_ready_recipe_fits_run_and_makes_a_plan(name: str) -> None:
    loaded = ll.load_recipe(name)
    inspect.signature(run).bind(loaded.spec, **loaded.run)
    lengths = {key: value for key, value in loaded.run.items() if key in ("model", "data", "epochs", "batch_size")}
    made = plan(loaded.spec, **lengths)
    assert sum(len(group.parameters) for group in made.groups) == 158 and made.groups[-1].name != "rest"
    assert ll.Spec.from_toml(loaded.spec.to_toml()) == loaded.spec
    assert str(made)


def test_the_default_is_the_backbone_at_a_tenth_of_the_heads_rate() -> None:
    spec, options = ll.load_recipe("backbone-and-head")
    backbone, head = spec.groups
    assert (backbone.match, backbone.lr_scale, head.lr_scale) == ("backbone", 0.1, 1.0)
    assert isinstance(spec.optimizer, ll.SGD) and (spec.optimizer.lr, spec.optimizer.momentum) == (0.1, 0.9)
    assert options["epochs"] == 6 and options["data"] == "digits"


def test_the_eager_tutorials_rates() -> None:
    """The tutorial's own loop is the oracle: it multiplies after batch 0, 10, 20, ..."""
    made = plan(ll.load_recipe("tutorial-eager").spec, epochs=2)
    assert [group.name for group in made.groups] == ["features", "adaptive_avg_pool2d", "classifier"]
    rates, factors = [1e-3, 1e-4, 1e-5], [0.9, 0.8, 0.7]
    for batch, row in enumerate(made.table()):
        assert row.tolist() == pytest.approx(rates, rel=1e-12)
        if batch % 10 == 0:
            rates = [rate * factor for rate, factor in zip(rates, factors, strict=True)]


def test_the_graph_tutorials_rates() -> None:
    loaded = ll.load_recipe("tutorial-graph")
    made = plan(loaded.spec, epochs=1)
    assert loaded.run["backend"] == "oneflow-graph"
    np.testing.assert_allclose(made.table(), np.tile([9e-4, 8e-4, 7e-4], (22, 1)), rtol=1e-14)
    assert all("native lr_scale" in how for how in made.lowering("oneflow-graph").values())


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    text = (
        SPEC
        + '[run]\nepochs = 3\nbackend = "torch-eager"\naugment = true\ndropout = 0\n'
        + '[run.initial_weights]\nreset = ["classifier"]\n'
    )
    for path in (recipe(tmp_path, text), str(recipe(tmp_path, text))):
        loaded = ll.load_recipe(path)
        assert loaded.spec == ll.Spec(ll.SGD(0.1))
        assert loaded.run == {
            "epochs": 3, "backend": "torch-eager", "augment": True, "dropout": 0,
            "initial_weights": {"reset": ["classifier"]},
        }  # fmt: skip


def test_every_option_of_run_can_stand_in_a_recipe(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "backend": "torch-eager", "model": "mobilenet_v2", "data": "cifar10", "data_root": "somewhere", "epochs": 2,
        "max_steps": 3, "batch_size": 4, "seed": 5, "dropout": {"*": 0.5},
        "pretrained": "w.npz", "head": "auto", "initialise": {"head": "xavier"}, "image_size": 48,
        "device": "cpu", "augment": False, "drop_last": False, "sizes": {"sides": [32, 48], "every": 3},
        "progress": False, "log": ["csv:runs/a.csv", "tensorboard:runs/a"],
        "save": str(tmp_path / "r.npz"), "accumulate_steps": 2, "ema_decay": 0.99,
        "initial_weights": {"source": "w.npz", "reset": ["classifier"]},
        "precision": {"dtype": "float64", "autocast": "bfloat16", "init_scale": 2.0, "growth_interval": 3},
        "checkpoints": {"folder": "runs/a", "every": "10 steps", "keep": 2, "keep_best": False, "best_metric": "loss",
                        "best_mode": "min"},
        "divergence": {"action": "rollback", "rollback_factor": 0.1, "skip_advances": True},
    }  # fmt: skip
    values["sync_batch_norm"] = True
    values["mix"] = {"mixup": 0.2, "cutmix": 1.0, "probability": 0.5}
    values["shard"] = True
    values["loss"] = {"label_smoothing": 0.1, "class_weights": [1.0, 2.0], "reduction": "sum"}
    values["early_stop"] = {
        "metric": "loss", "patience": 2, "min_delta": 0.1, "mode": "min", "target": 0.5, "restore_best": False,
        "time_limit": "20 minutes",
    }  # fmt: skip
    assert set(values) == set(inspect.signature(run).parameters) - {"spec", "callbacks", "dry_run", "metrics"}
    for name, cls in VALUES.items():
        assert set(values[name]) == {field.name for field in fields(cls)}
    text = SPEC + tomli_w.dumps({"run": values})
    assert ll.load_recipe(recipe(tmp_path, text)).run == values


VALUES: dict[str, Any] = {
    "initial_weights": ll.InitialWeights,
    "sizes": ll.Sizes,
    "loss": ll.CrossEntropy,
    "precision": ll.Precision,
    "checkpoints": ll.Checkpoints,
    "divergence": ll.Divergence,
    "early_stop": ll.EarlyStop,
}


def test_a_word_stands_for_the_whole_value(tmp_path: Path) -> None:
    words = {"initial_weights": "w.npz", "precision": "float64", "checkpoints": "runs/a", "divergence": "skip"}
    options = RunOptions(**ll.load_recipe(recipe(tmp_path, SPEC + tomli_w.dumps({"run": words})), trust=True).run)
    assert options.initial_weights == ll.InitialWeights("w.npz") and options.precision == ll.Precision("float64")
    assert options.checkpoints == ll.Checkpoints("runs/a") and options.divergence == ll.Divergence("skip")
    assert RunOptions(precision="bfloat16").precision == ll.Precision(autocast="bfloat16")


@pytest.mark.parametrize(
    ("old", "new"),
    [("checkpoint_dir = 'a'", "ll.Checkpoints"), ("dtype = 'float64'", "precision="), ("keep = 3", "keep=")],
)
def test_an_old_name_says_the_new_one(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ll.SpecError, match=new):
        ll.load_recipe(recipe(tmp_path, SPEC + "[run]\n" + old))


def test_a_recipe_without_a_run_table(tmp_path: Path) -> None:
    assert ll.load_recipe(recipe(tmp_path, SPEC)).run == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC + "[run]\nepoch = 3", "'epoch'.*Did you mean 'epochs'"),
        (SPEC + "[run]\nspec = 3", "'spec'"),
        (SPEC + "[run]\nrecipe = 'x'", "'recipe'"),
        (SPEC + "[run]\nepochs = 0", "epochs=0"),
        (SPEC + "[run]\nepochs = 1.5", "epochs=1.5.*whole"),
        (SPEC + "[run]\ndropout = nan", "dropout=nan"),
        (SPEC + "[run]\nseed = -1", "seed=-1"),
        (SPEC + "[run]\naugment = 'yes'", "augment='yes'"),
        (SPEC + "[run]\nmodel = 'no_such_module:build'", "model='no_such_module:build'"),
        (SPEC + "[run]\ndata_root = 3", "data_root"),
        (SPEC + "[run.initial_weights]\nreset = 3", "reset"),
        ("run = 3\n" + SPEC, "run must be a table"),
        ("[[run]]\n" + SPEC, "run must be a table"),
        ("epochs = 3\n" + SPEC, "'epochs'"),
        (SPEC + "[optimiser]\nlr = 3", "'optimiser'.*Did you mean 'optimizer'"),
        ("[run]\nepochs = 3", "optimizer"),
        (SPEC + "lr_sacle = 3", "'lr_sacle'"),
        (SPEC + "[run", "TOML"),
    ],
    ids=lambda text: text[-20:].strip(),
)
def test_a_wrong_recipe_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((ll.SpecError, ll.DataError), match=message) as caught:
        ll.load_recipe(recipe(tmp_path, text), trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["tutorial_graph", "", "tutorial-graph.tml", "no/such.toml", ".", None, 3])
def test_a_recipe_that_is_not_there_is_refused(name: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"recipe|no such file"):
        ll.load_recipe(name)


def test_a_ready_recipe_comes_with_the_package_as_toml() -> None:
    folder = Path(ll.__file__).parent / "recipes"
    assert {path.stem for path in folder.glob("*.toml")} == set(ll.ready_recipes())
