"""Models by name train on every backend alike: the same names, the same first weights, the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import value_of
from tests.support.made_once import make_once

pytestmark = pytest.mark.usefixtures("torch", "oneflow")


def runs() -> dict[str, object]:
    """What three backends make of models by name: losses, names and groups."""
    import tempfile
    from pathlib import Path

    import numpy as np

    import layered_lr as ll

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8), np.arange(16) % 3
    spec = ll.Spec(ll.SGD(0.01, momentum=0.9), [ll.Group("backbone", lr_scale=0.1), ll.Group("head")])
    said = {"data": (images, labels, images[:8], labels[:8]), "batch_size": 8, "progress": False}
    found: dict[str, object] = {}
    for backend in ("torch-eager", "oneflow-eager", "oneflow-graph"):
        for model, where in {
            "resnet18": "graph eager",
            "squeezenet1_1": "graph",
            "mobilenet_v3_small": "eager",
        }.items():
            if backend != "torch-eager" and backend.removeprefix("oneflow-") not in where:
                continue
            dropout = None if model == "resnet18" else 0.0  # which each framework would draw itself
            result = ll.run(spec, backend, model, max_steps=2, dropout=dropout, image_size=32, **said)
            found[f"{backend} {model}"] = [
                result.losses.tolist(),
                sorted(result.weights),
                {group.name: len(group.parameters) for group in result.plan.groups},
            ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        ll.run(spec, "torch-eager", "resnet18", max_steps=1, checkpoints=path, **said)
        found["resumed"] = ll.resume(path, backend="oneflow-graph", max_steps=2, data=said["data"]).losses.tolist()
    return found


@pytest.fixture(scope="module")
def all_runs(torch: Any, oneflow: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def make(_: Path) -> Any:
        return value_of(runs)

    found: dict[str, Any] = make_once(tmp_path_factory, "zoo runs", make)
    return found


@pytest.mark.parametrize(
    ("backend", "model"),
    [
        ("oneflow-eager", "resnet18"),
        ("oneflow-graph", "resnet18"),
        ("oneflow-graph", "squeezenet1_1"),
        ("oneflow-eager", "mobilenet_v3_small"),
    ],
)
def test_a_model_by_name_trains_as_on_torch(all_runs: dict[str, Any], backend: str, model: str) -> None:
    losses, names, groups = all_runs[f"{backend} {model}"]
    expected, torchs, theirs = all_runs[f"torch-eager {model}"]
    # Batch normalisations over few images amplify rounding; the first loss is before any update.
    assert losses[0] == pytest.approx(expected[0], rel=1e-5) and losses[1] == pytest.approx(expected[1], rel=1e-2)
    assert names == torchs and groups == theirs


def test_a_run_begun_on_torch_goes_on_with_oneflow(all_runs: dict[str, Any]) -> None:
    assert all_runs["resumed"] == pytest.approx(all_runs["torch-eager resnet18"][0], rel=1e-2)
