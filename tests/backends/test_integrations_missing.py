"""What a module for another trainer says where the trainer is missing or too old; the trainers are tried elsewhere."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import pytest

import layered_lr as ll

pytestmark = pytest.mark.usefixtures("torch")


def calls() -> dict[str, Callable[[], Any]]:
    from layered_lr_torch.integrations import accelerate, fastai, ignite, keras, lightning, mmengine, transformers

    spec, nothing = ll.Spec(ll.SGD(0.1)), object()
    return {
        "lightning": lightning.log_rates,
        "transformers": lambda: transformers.use_spec(nothing, spec),
        "accelerate": lambda: accelerate.prepare_scheduler(nothing, nothing),  # type: ignore[arg-type]
        "pytorch-ignite": lambda: ignite.attach(nothing, nothing),  # type: ignore[arg-type]
        "fastai": lambda: fastai.use_spec(nothing, spec),
        "mmengine": lambda: mmengine.make_hook(spec),
        "keras": lambda: keras.make_optimizer(spec, nothing),
    }


@pytest.mark.parametrize(
    "tool", ["lightning", "transformers", "accelerate", "pytorch-ignite", "fastai", "mmengine", "keras"]
)
def test_a_trainer_that_is_missing_or_too_old_is_said(tool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(ll.ToolUnavailable, match=rf"{tool} is not installed, .* pip install '{tool}>=\d"):
        calls()[tool]()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1rc1")
    with pytest.raises(ll.ToolUnavailable, match=rf"{tool} 0\.0\.1rc1 is installed, and this needs {tool} \d"):
        calls()[tool]()


def test_a_trainer_that_cannot_be_imported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr.tools import import_tool

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9")
    with pytest.raises(ll.ToolUnavailable, match=r"some_trainer 9\.9 is installed, but importing some_trainer failed"):
        import_tool("some_trainer", "some_trainer", "1.0")


def test_a_wrapped_optimizer_gets_the_scheduler(torch: Any) -> None:
    """As accelerate and Lightning wrap it: of the same class tree, without what ``__init__`` makes."""

    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer: Any) -> None:
            self.optimizer = optimizer

        @property
        def param_groups(self) -> Any:
            return self.optimizer.param_groups

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("0", lr_scale=0.5)], ll.CosineDecay(), clip_grad_norm=0.1)
    inner = torch.optim.SGD(ll.param_groups(spec, model))
    scheduler = ll.scheduler(spec, Wrapper(Wrapper(inner)), model, total_steps=4)
    assert scheduler.optimizer is inner
    model(torch.ones(2, 4)).sum().backward()
    inner.step()
    scheduler.step()
    assert scheduler.get_last_lr() == scheduler.plan.rates(1)


def test_pytest_does_not_look_into_the_folder_of_the_trainers(pytestconfig: pytest.Config) -> None:
    assert "integrations" in pytestconfig.getini("norecursedirs")
    assert (pytestconfig.rootpath / "tests" / "integrations" / "conftest.py").is_file()
