"""Callables that make a model, right and wrong; each wrong one is a SpecError of one line, without a traceback."""

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.models.user_models import make_model

torch = pytest.importorskip("torch")

MODULE = """
import torch
from torch import nn

class NeedsClasses(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(3072, num_classes)

class Raises(nn.Module):
    def __init__(self):
        raise KeyError("weights")

net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
number = 3

def makes_a_number():
    return 3

def batch_one():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3072), nn.Linear(3072, 10))
"""

CASES = [
    ("NeedsClasses", "", r"NeedsClasses\(\) failed: TypeError.*give a function that needs none"),
    ("Raises", "", r"Raises\(\) failed: KeyError: 'weights'"),
    ("net", "", r"got a Sequential object at 'mine:net'; give what builds it"),
    ("number", "", "must be callable"),
    ("makes_a_number", "", "the callable made a int"),
    ("missing", "", "has no attribute 'missing'"),
    ("batch_one", "batch_size = 1", "A batch normalisation needs more than one value.*batch_size=2"),
]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "mine.py").write_text(MODULE)
    return folder


@pytest.mark.parametrize(("name", "option", "message"), CASES)
@pytest.mark.parametrize("function", [ll.run, ll.plan])
def test_a_wrong_model_is_one_line(
    function: object, name: str, option: str, message: str, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(mine))
    more = {"batch_size": 1} if option else {}
    if function is ll.run:
        with pytest.raises(ll.SpecError, match=message) as caught:
            ll.run(ll.Spec(ll.SGD(0.1)), model=f"mine:{name}", max_steps=1, progress=False, **more)
        assert "\n" not in str(caught.value)
    elif not option:
        with pytest.raises(ll.SpecError, match=message):
            ll.plan(ll.Spec(ll.SGD(0.1)), model=f"mine:{name}", max_steps=1)


def test_the_command_shows_no_traceback(mine: Path) -> None:
    (mine / "r.toml").write_text('[optimizer]\ntype = "SGD"\nlr = 0.1\n')
    words = ["plan", "--recipe", "r.toml", "--model", "mine:net"]
    done = subprocess.run([sys.executable, "-m", "layered_lr", *words], cwd=mine, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "give what builds it" in done.stderr


def test_what_is_right_is_made() -> None:
    assert isinstance(make_model(lambda: torch.nn.Linear(2, 2)), torch.nn.Linear)


def test_a_callable_that_returns_what_it_returned_before_is_refused() -> None:
    """A second run would begin with what the first has trained."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    images = np.zeros((8, 3, 2, 2), np.float32), np.arange(8) % 3
    given = {"data": (*images, *images), "batch_size": 4, "max_steps": 1, "progress": False}
    ll.run(ll.Spec(ll.SGD(0.1)), model=lambda: net, **given)
    with pytest.raises(ll.SpecError, match=r"<lambda>\(\) returned the same Sequential as before.*copy.deepcopy"):
        ll.run(ll.Spec(ll.SGD(0.1)), model=lambda: net, **given)
    runs = [ll.run(ll.Spec(ll.SGD(0.1)), model=lambda: copy.deepcopy(net), **given) for _ in range(2)]
    assert runs[0].losses == runs[1].losses


def test_names_of_a_wrapper_do_not_count_where_states_and_weights_are_loaded(tmp_path: Path) -> None:
    def net() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 3))

    def wrapped() -> torch.nn.Module:
        return torch.nn.DataParallel(net())

    spec = ll.Spec(ll.SGD(0.1))
    model, other = net(), wrapped()
    ll.save_state(tmp_path / "state", model, *ll.compile(spec, model))
    for target in (other, other.module):
        with torch.no_grad():
            other.module[0].weight.zero_()
        ll.load_state(tmp_path / "state", target, *ll.compile(spec, target))
        assert torch.equal(other.module[0].weight, model[0].weight)

    images = np.zeros((8, 3, 2, 2), np.float32), np.arange(8) % 3
    data = (*images, *images)
    flat = lambda: torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)))  # noqa: E731
    weights = {f"module.{name}": tensor for name, tensor in flat().module.state_dict().items()}
    begun = ll.InitialWeights(weights, reset=["1.weight"])  # matches as Group.match does, without the wrapper's part
    result = ll.run(spec, model=flat, data=data, batch_size=4, max_steps=1, progress=False, initial_weights=begun)
    assert len(result.losses) == 1
    inside = lambda: flat().module  # noqa: E731
    for given in (begun, weights):
        result = ll.run(spec, model=inside, data=data, batch_size=4, max_steps=1, progress=False, initial_weights=given)
        assert len(result.losses) == 1
