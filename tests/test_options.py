"""What goes wrong at the edges of options: old names, empty folders, defaults that help promises."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr import api
from tests.support.models import arrays


@pytest.mark.parametrize(
    ("function", "name", "hint"),
    [
        (ll.run, "checkpoint_dir", r"Give checkpoints=ll.Checkpoints\(folder\) instead"),
        (ll.run, "dtype", r"Give precision=... instead"),
        (ll.run, "epoch", "Did you mean 'epochs'"),
        (ll.compare, "reset_weights", r"Give initial_weights=ll.InitialWeights\(source, reset=...\) instead"),
        (ll.plan, "max_step", "Did you mean 'max_steps'"),
    ],
)
def test_an_argument_that_is_none_is_a_type_error_with_a_hint(function: Any, name: str, hint: str) -> None:
    with pytest.raises(
        TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword argument '{name}'. {hint}"
    ):
        function(**{name: 3})


def test_an_empty_path_is_no_folder() -> None:
    with pytest.raises(ll.SpecError, match="folder=''"):
        ll.Checkpoints("")


def test_compare_without_a_recipe_uses_the_defaults_that_its_help_shows(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Same:
        same = True

    def compare(spec: ll.Spec, *, batch_size: int = 32, model: str, data: str, epochs: int) -> Same:
        asked.append(batch_size)
        return Same()

    monkeypatch.setattr(api, "compare", compare)
    assert call("compare").code == call("compare", "--batch-size", "8").code == 0
    assert asked == [32, 8]


def test_the_command_for_the_other_framework_writes_nowhere_twice(
    call: Any, oneflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done(str):
        backend, plan = "torch-eager", ll.plan(max_steps=1)

    monkeypatch.setattr(api, "run", lambda spec, **options: Done("the result"))
    line = call("run", "--checkpoint-dir", "runs/a", "--keep", "5", "--save", "x.npz").out.splitlines()[-1]
    assert "--keep 5" in line and "runs/a" not in line and "x.npz" not in line


def test_the_recipe_in_a_runs_folder_runs_again(torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))
    said: dict[str, Any] = {"data": tmp_path / "data.npz", "model": "tests.support.resuming:torch_net"}
    checkpoints = ll.Checkpoints(tmp_path / "run", keep=1)
    ll.run(ll.Spec(ll.SGD(0.1)), **said, max_steps=1, batch_size=8, progress=False, checkpoints=checkpoints)
    recipe = ll.load_recipe(tmp_path / "run" / "recipe.toml", trust=True)
    assert len(ll.run(recipe.spec, **recipe.run).losses) == 1
    assert "no folder is given, so none are written" in capsys.readouterr().err


def test_a_wrong_option_is_a_spec_error_that_another_process_can_raise() -> None:
    import pickle

    with pytest.raises(ll.SpecError) as caught:
        ll.Sizes([16])
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value) is ll.SpecError
    assert str(again) == str(caught.value) and again.wrong_flag == caught.value.wrong_flag
    assert again.wrong_flag is not None and again.wrong_flag[0] == "--sizes"


NOWHERE = "/no/such/folder"
TRUE_OR_FALSE: dict[str, Any] = {
    "Result.load(trust": lambda value: ll.Result.load(NOWHERE, trust=value),
    "RateSearch.load(trust": lambda value: ll.RateSearch.load(NOWHERE, trust=value),
    "RateSearch.from_dict(trust": lambda value: ll.RateSearch.from_dict({}, trust=value),
    "Spec.from_dict(trust": lambda value: ll.Spec.from_dict({}, trust=value),
    "Spec.from_toml(trust": lambda value: ll.Spec.from_toml(NOWHERE, trust=value),
    "load_recipe(trust": lambda value: ll.load_recipe(NOWHERE, trust=value),
    "plan_from_dict(trust": lambda value: ll.plan_from_dict({}, trust=value),
    "resume(trust": lambda value: ll.resume(NOWHERE, trust=value),
    "resume(strict": lambda value: ll.resume(NOWHERE, strict=value),
    "report(trust": lambda value: ll.report(NOWHERE, "no.text", trust=value),
    "sweep(trust": lambda value: ll.sweep(NOWHERE, NOWHERE, jobs=0, trust=value),
}


@pytest.mark.parametrize("value", [1, "no", None])
@pytest.mark.parametrize("call", TRUE_OR_FALSE)
def test_what_is_neither_true_nor_false_is_refused_before_anything_is_read(call: str, value: Any) -> None:
    with pytest.raises(ll.SpecError, match=rf"{re.escape(call)}={value!r}\): must be true or false"):
        TRUE_OR_FALSE[call](value)
