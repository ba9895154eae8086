"""The command line: what it answers, what wins over what, and how it refuses."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from layered_lr import api
from layered_lr.cli import cli

SPEC = '[optimizer]\ntype = "SGD"\nlr = 0.1\n[[groups]]\nmatch = "features"\nlr_scale = 0.5\n'


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[ll.Spec, dict[str, Any]]]:
    """What the command asks of ``run``, which does not train here."""
    calls: list[tuple[ll.Spec, dict[str, Any]]] = []

    class Done(str):
        backend, plan = "torch-eager", ll.plan(max_steps=1)

    def run(spec: ll.Spec, **options: Any) -> Done:
        calls.append((spec, options))
        return Done("the result")

    monkeypatch.setattr(api, "run", run)
    return calls


def test_version_and_help(call: Any) -> None:
    assert ll.__version__ in call("--version").out
    answer = call("--help")
    assert answer.code == 0 and all(command in answer.out for command in ("run", "plan", "doctor"))
    for command in ("run", "plan", "doctor"):
        assert call(command, "--help").code == 0
        assert call(command, "-h").out.startswith("Usage")


def test_no_command_says_how_to_get_help_in_a_line_or_two(call: Any) -> None:
    answer = call()
    assert answer.code in (0, 2)
    assert len(answer.err.splitlines()) <= 2, answer.err


PARTS = {
    name: {field.name for field in fields(cls)}
    for name, cls in {
        "initial_weights": ll.InitialWeights,
        "sizes": ll.Sizes,
        "precision": ll.Precision,
        "checkpoints": ll.Checkpoints,
        "divergence": ll.Divergence,
        "early_stop": ll.EarlyStop,
        "loss": ll.CrossEntropy,
        "mix": ll.Mix,
    }.items()
}


def split(name: str) -> tuple[str, str, str]:
    return name.partition("__")


def test_each_option_can_stand_in_the_recipe_too() -> None:
    known = set(inspect.signature(ll.run).parameters) - {"spec", "callbacks", "metrics"}  # what only Python can say
    flags = {str(parameter.name) for parameter in cli.commands["run"].params} - {"recipe", "settings", "trust"}
    assert {name.partition("__")[0] for name in flags} == known
    grouped = {name for name in flags if "__" in name}
    assert len(grouped) == 30 and all(part in PARTS[name] for name, _, part in map(split, grouped))
    shown = {"plot", "scale", "csv", "as_json"}  # how the plan is told, no part of a run
    assert {str(parameter.name) for parameter in cli.commands["plan"].params} - {
        "recipe",
        "settings",
        "trust",
    } - shown <= known


def test_a_plan_of_the_default_recipe(call: Any) -> None:
    answer = call("plan")
    assert answer.code == 0 and answer.err == ""
    assert answer.out == f"{api.plan()}\n" and "backbone" in answer.out and "132 steps" in answer.out


def test_the_command_line_wins_over_the_recipe_in_a_plan(call: Any, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(SPEC + "[run]\nepochs = 3\nbatch_size = 100\nbackend = 'oneflow-graph'\n")
    recipe = ("plan", "--recipe", str(tmp_path / "r.toml"))
    assert "42 steps, 14 an epoch" in call(*recipe).out
    assert "14 steps, 14 an epoch" in call(*recipe, "--epochs", "1").out
    assert "66 steps, 22 an epoch" in call(*recipe, "--batch-size", "64").out
    assert "5 steps" in call(*recipe, "--max-steps", "5").out
    assert "oneflow-graph" in call(*recipe).out and "torch-eager" not in call(*recipe).out
    assert "torch-compile" in call(*recipe, "--backend", "torch-compile").out


def test_a_run_asks_for_what_the_recipe_says(call: Any, asked: Any, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        SPEC + "[run]\nepochs = 3\ndropout = 0.5\naugment = true\n[run.initial_weights]\nreset = ['a', 'b']\n"
    )
    answer = call("run", "--recipe", str(tmp_path / "r.toml"))
    assert answer.code == 0 and answer.out.startswith("the result\n")
    options = {"epochs": 3, "dropout": 0.5, "augment": True, "initial_weights": {"reset": ["a", "b"]}}
    assert asked == [(ll.Spec.from_toml(SPEC), options)]


def test_a_run_asks_for_what_the_command_line_says_instead(call: Any, asked: Any, tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "backend": "oneflow-eager", "model": "mobilenet_v2", "data": "cifar10", "data_root": "x y", "epochs": 2,
        "max_steps": 7, "batch_size": 16, "seed": 3, "dropout": 0.0, "device": "cpu",
        "save": str(tmp_path / "r.npz"),
    }  # fmt: skip
    lines = "".join(f"{key} = {value!r}\n" for key, value in (said | {"epochs": 9, "dropout": 0.9, "seed": 9}).items())
    lines += "augment = true\nprogress = true\n[run.initial_weights]\nsource = 'v.npz'\nreset = ['x']\n"
    lines += "[run.checkpoints]\nfolder = 'runs/a'\nkeep = 9\n"
    (tmp_path / "r.toml").write_text(SPEC + "[run]\n" + lines)
    words = [word for key, value in said.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    flags = ["--no-augment", "--no-progress", "--reset-weights", "a", "--reset-weights", "b", "--keep", "1"]
    flags += ["--initial-weights", "w.npz", "--autocast", "bfloat16", "--trust"]
    assert call("run", "--recipe", str(tmp_path / "r.toml"), *words, *flags).code == 0
    ((_, options),) = asked
    options["save"] = str(options["save"])
    changed = {"augment": False, "progress": False, "precision": {"autocast": "bfloat16"}}
    assert options.pop("initial_weights") == {"source": "w.npz", "reset": ("a", "b")}
    assert options.pop("checkpoints") == {"folder": Path("runs/a"), "every": "1 epoch", "keep": 1, "keep_best": True,
                                          "best_metric": "accuracy", "best_mode": "max"}  # fmt: skip
    assert options == said | changed


def test_a_run_ends_with_the_command_for_the_other_framework(call: Any, asked: Any, oneflow: Any) -> None:
    line = call("run", "--epochs", "2", "--data", "a b.npz", "--no-augment", "--seed", "0").out.splitlines()[-1]
    assert "--epochs 2" in line and "--data 'a b.npz'" in line and "--no-augment" in line and "--seed 0" in line
    assert line.endswith("--backend oneflow-graph") and "layered-lr run" in line and "OneFlow" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "'train'"),
        (["run", "--epoch-s", "3"], "--epoch-s"),
        (["run", "extra"], "extra"),
        (["run", "--epochs"], "--epochs"),
        (["run", "--epochs", "many"], "'many'"),
        (["run", "--epochs", "1.5"], "'1.5'"),
        (["run", "--sizes", "16,abc"], "--sizes 16,abc: must be 2 to 16 different whole numbers"),
        (["run", "--sizes-every", "3"], "--sizes-every needs --sizes beside it: 2 to 16 different whole numbers"),
        (["run", "--class-weights=a,b"], "--class-weights a,b: must be a number from 0 to 1e30 for each class"),
        (
            ["run", "--loss", "a:b", "--label-smoothing", "0.1"],
            "--label-smoothing goes with --loss cross_entropy",
        ),
        (["run", "--epochs", "0"], "--epochs 0: must be"),
        (["run", "--epochs", "-3"], "--epochs -3: must be"),
        (["run", "--batch-size", "0"], "--batch-size 0: must be"),
        (["run", "--batch-size", "1438"], "1437"),
        (["run", "--max-steps", "-1"], "--max-steps -1: must be"),
        (["run", "--seed", "-1"], "--seed -1: must be"),
        (["run", "--dropout", "nan"], "--dropout nan: must be"),
        (["run", "--dropout", "inf"], "--dropout inf: must be"),
        (["run", "--dropout", "1.01"], "--dropout 1.01: must be"),
        (["run", "--dropout", "=0.5"], "nothing stands before a '='"),
        (["run", "--dropout", "a=0.5,a=0.1"], "'a' is given twice"),
        (["run", "--initialise", "head=svd,b=svd, head=torch"], "'head' is given twice"),
        (["run", "--backend", "tensorflow"], "backend='tensorflow'"),
        (["run", "--backend", ""], "backend=''"),
        (["run", "--device", "tpu"], "device='tpu'"),
        (["run", "--model", "resnet"], "model='resnet'"),
        (["run", "--model", "nowhere:build"], "nowhere:build"),
        (["run", "--model", ".here:build"], ".here:build"),
        (["run", "--data", "imagenet"], "data='imagenet'"),
        (["run", "--data", "missing.npz"], "missing.npz"),
        (["run", "--initial-weights", "missing.npz"], "missing.npz"),
        (["run", "--initial-weights", "w.bin"], "w.bin"),
        (["run", "--reset-weights", ""], "empty"),
        (["run", "--save", "no/such/folder/r.npz"], "no/such/folder"),
        (["run", "--recipe", "tutorial"], "tutorial-graph"),
        (["run", "--recipe", "missing.toml"], "missing.toml"),
        (["plan", "--recipe", ""], "recipe"),
        (["plan", "--backend", "oneflow"], "backend='oneflow'"),
        (["run", "--lr", "0.1"], "No such option '--lr'. It belongs in a recipe, under [optimizer]"),
        (["plan", "--weight-decay", "0.1"], "It belongs in a recipe, under [optimizer]"),
        (["compare", "--step-size", "3"], "It belongs in a recipe, under [schedule]"),
        (["run", "--lr-scale", "3"], "It belongs in a recipe, under [[groups]]"),
        (["run", "--no-weight-decay", "1d"], "It belongs in a recipe, above all tables"),
        (["run", "--groups", "3"], "It belongs in a recipe, under [[groups]]"),
        (["run", "--epoch", "3"], "Did you mean '--epochs'? (see"),
        (["run", "--batchsize", "3"], "Did you mean '--batch-size'? (see"),
        (["bench", "--lr", "3"], "No such option '--lr'. It belongs to the spec"),
        (["run", "--zz", "3"], "No such option '--zz'. (see"),
        (["plan", "--data", "cifar"], "Did you mean 'cifar10'"),
        (["plan", "--model", "os.path:join:x"], "os.path:join:x"),
        (["plan", "--model", "os:getcwd"], "model"),
        (["doctor", "--fix"], "--fix"),
    ],
    ids=str,
)
def test_wrong_words_are_refused(call: Any, refused: Any, words: list[str], message: str) -> None:
    refused(call(*words), message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC + "[run]\nepoch = 3\n", "'epoch'"),
        (SPEC + "[run]\ndata_root = 3\n", "data_root"),
        (SPEC + "[run.initial_weights]\nreset = 3\n", "reset"),
        (SPEC + "[run]\nbackend = 'torch'\n", "backend='torch'"),
        (SPEC + "[run]\nmodel = 'resnet81'\n", "model='resnet81'"),
        (SPEC + "[run]\ndata = 'mnist'\n", "data='mnist'"),
        (SPEC + "[run]\nmodel = '.here:build'\n", ".here:build"),
        (SPEC.replace("features", "feature"), "Did you mean 'features'"),
        (SPEC.replace("features", "re:(f"), "re:(f"),
        (SPEC.replace("features", "re:f{99999999999}"), "re:f{99999999999}"),
        (SPEC.replace("0.5", "inf"), "lr_scale=inf"),
        (SPEC + "[[groups]]\nmatch = 'features'\nname = 'again'\n", "earlier group"),
        ("\x00", "TOML"),
        ("", "optimizer"),
    ],
    ids=lambda text: text[-20:].strip(),
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_recipe_is_refused(
    call: Any, refused: Any, tmp_path: Path, command: str, text: str, message: str
) -> None:
    (tmp_path / "r.toml").write_text(text)
    refused(call(command, "--recipe", str(tmp_path / "r.toml")), message)


@pytest.mark.usefixtures("asked")
def test_the_same_on_another_framework_can_be_pasted(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table was printed as Python writes it."""
    monkeypatch.setattr("layered_lr.cli._would_run", lambda *_: True)
    said = call("run", "--dropout", "classifier=0.1,features=0.2", "--initialise", "head=svd").out
    assert "--dropout classifier=0.1,features=0.2 --initialise head=svd" in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dropout = {clasifier = 0.2}", "matches none of the model's dropouts"),
        ('initialise = {claswifier = "svd"}', "initialise='claswifier' matches none"),
        ('initialise = {"*" = "svd", head = "xavier"}', "is never used"),
    ],
)
def test_a_plan_of_a_recipe_refuses_what_a_run_does(
    call: Any, refused: Any, tmp_path: Path, line: str, words: str
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f"{SPEC}[run]\nmax_steps = 1\n{line}\n")
    refused(call("plan", "--recipe", str(recipe)), words)
    recipe.write_text(f'{SPEC}[run]\nmax_steps = 1\ndropout = {{classifier = 0.2}}\ninitialise = "svd"\n')
    assert call("plan", "--recipe", str(recipe)).code == 0
