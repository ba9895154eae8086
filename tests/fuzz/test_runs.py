"""Random specs and options through training, and random recipes through the command: a result, or one clear error."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import strategies as st

import layered_lr as ll
from layered_lr.cli import main
from tests.support.fuzz import Target, hold
from tests.support.fuzz_specs import recipes, specs
from tests.support.isolation import values_of

options = {
    "max_steps": st.integers(1, 4),
    "batch_size": st.sampled_from([1, 3, 4, 99]),
    "accumulate_steps": st.sampled_from([1, 2]),
    "ema_decay": st.sampled_from([None, 0.0, 0.9]),
    "divergence": st.sampled_from(["stop", "skip", "rollback"]),
    "precision": st.sampled_from(["float32", "float64", "bfloat16"]),
    "augment": st.sampled_from([None, False, True]),
    "seed": st.integers(0, 3),
}


def train(spec: ll.Spec, **chosen: Any) -> None:
    import torch

    def net() -> torch.nn.Module:
        body, head = torch.nn.Linear(12, 4), torch.nn.Linear(4, 3)
        named = {"flat": torch.nn.Flatten(), "body": body, "tanh": torch.nn.Tanh(), "head": head}
        model = torch.nn.Sequential()
        for name, module in named.items():
            model.add_module(name, module)
        return model

    images, labels = np.linspace(0, 1, 96, dtype=np.float32).reshape(8, 3, 2, 2), np.arange(8) % 3
    result = ll.run(spec, model=net, data=(images, labels) * 2, progress=False, **{"max_steps": 2, **chosen})
    assert len(result.losses) <= chosen.get("max_steps", 2)
    assert all(np.isfinite(array).all() for array in result.weights.values())
    assert str(result)


def test_training_on_torch() -> None:
    pytest.importorskip("torch")
    hold(Target("run", train, {"spec": specs}, options), 40)


def loop_of_ones_own(spec: ll.Spec, steps: int) -> None:
    import torch

    model = torch.nn.ModuleDict({"body": torch.nn.Linear(12, 4), "head": torch.nn.Linear(4, 3)})
    optimizer, scheduler = ll.compile(spec, model, total_steps=4, steps_per_epoch=2)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model["head"](model["body"](torch.ones(2, 12))).sum()
        if loss.requires_grad:
            loss.backward()
        optimizer.step()
        scheduler.step()
    assert len(scheduler.get_last_lr()) > 0


def test_a_loop_of_ones_own_on_torch() -> None:
    pytest.importorskip("torch")
    hold(Target("compile", loop_of_ones_own, {"spec": specs, "steps": st.integers(1, 4)}), 60)


def fuzz_oneflow(examples: int) -> bool:
    """In a process of its own: specs through OneFlow's eager mode."""
    import oneflow as flow

    import layered_lr as ll
    from tests.support.fuzz import Target, hold
    from tests.support.fuzz_specs import specs

    def loop(spec: ll.Spec) -> None:
        model = flow.nn.Sequential()
        model.add_module("body", flow.nn.Linear(12, 4))
        model.add_module("head", flow.nn.Linear(4, 3))
        optimizer, scheduler = ll.compile(spec, model, total_steps=4, steps_per_epoch=2)
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            model(flow.ones(2, 12)).sum().backward()
            optimizer.step()
            scheduler.step()
        assert len(scheduler.get_last_lr()) > 0

    hold(Target("compile on OneFlow", loop, {"spec": specs}), examples)
    return True


def test_a_loop_of_ones_own_on_oneflow() -> None:
    pytest.importorskip("oneflow")
    seconds = 600 + 60 * float(os.environ.get("FUZZ_MINUTES", "0"))
    assert values_of(fuzz_oneflow, [[40]], timeout_seconds=seconds) == [True]


def test_recipes_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    file = tmp_path / "recipe.toml"

    def plan(recipe: dict[str, Any], more: list[str]) -> None:
        file.write_text(tomli_w.dumps(recipe), encoding="utf-8", errors="replace")
        monkeypatch.setattr("sys.argv", ["layered-lr", "plan", "--recipe", str(file), "--max-steps", "3", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert ended.value.code in (0, 2) and "Traceback" not in said.err
        assert (said.out if ended.value.code == 0 else said.err).strip()

    more = st.sampled_from([[], ["--json"], ["--backend", "oneflow-graph"], ["--epochs", "2"], ["--batch-size", "0"]])
    hold(Target("layered-lr plan", plan, {"recipe": recipes, "more": more}), 60)
