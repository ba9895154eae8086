"""The blocks of docs/trainers.md run as they stand, and its table names the versions that are tried."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import layered_lr as ll
from tests.support.trainers import Net, make_data, make_loader

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trainers.md").read_text()
SECTIONS = {
    name: blocks
    for section in PAGE.split("\n## ")[1:]
    if (blocks := re.findall(r"```py\n(.*?)\n```", section, re.DOTALL)) and (name := section.split("\n")[0])
}
PACKAGES = {"PyTorch-Ignite": "pytorch-ignite", "Composer": "mosaicml", "Keras 3 on torch": "keras"}


class Classifier(torch.nn.Module):
    """As the Trainer of transformers wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        return {"loss": torch.nn.functional.cross_entropy(self.net(x), labels)}


def namespace(section: str, folder: Path) -> dict[str, Any]:
    """What the page says that a reader has."""
    names = {"ll": ll, "torch": torch, "model": Net(), "loader": make_loader(), "dataset": make_data()}
    names |= {"output_dir": str(folder), "quiet": {}}
    names["spec"] = ll.Spec(
        ll.SGD(0.1, momentum=0.9),
        groups=[ll.Group("*stem.*", lr_scale=0.1), ll.Group("*body.*", lr_scale=0.3), ll.Group("*head.*")],
        schedule=ll.CosineDecay(warmup_steps=2),
    )
    if section == "Lightning":
        names["quiet"] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    elif section == "transformers":
        names["quiet"] = {"report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
        names |= {"hf_model": Classifier(), "hf_dataset": [{"x": x, "labels": y} for x, y in make_data()]}
    elif section == "mmengine":
        import mmengine.model

        class Model(mmengine.model.BaseModel):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = Net()

            def forward(self, x: Any, y: Any, mode: str) -> Any:
                return {"loss": torch.nn.functional.cross_entropy(self.net(x), y)}

        rows = [{"x": x, "y": y} for x, y in make_data()]
        names |= {"mm_model": Model(), "mm_loader": torch.utils.data.DataLoader(rows, batch_size=8)}
    elif section == "Composer":
        import composer

        class ComposerNet(composer.models.ComposerModel):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.net = Net()

            def forward(self, batch: Any) -> Any:
                return self.net(batch[0])

            def loss(self, outputs: Any, batch: Any) -> Any:
                return torch.nn.functional.cross_entropy(outputs, batch[1])

        names["composer_model"] = ComposerNet()
    elif section == "Keras 3":
        names |= {"xs": np.ones((48, 8), "float32"), "targets": np.ones((48, 3), "float32")}
    return names


@pytest.mark.parametrize("section", SECTIONS)
def test_the_blocks_of_a_section_run(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = namespace(section, tmp_path)
    for block in SECTIONS[section]:
        exec(compile(block, f"docs/trainers.md, {section}", "exec"), names)
    made = names.get("scheduler") or getattr(names.get("optimizer"), "scheduler", None)
    assert made is None or getattr(made, "scheduler", made).last_epoch > 0


def test_each_trainer_of_the_table_has_the_version_that_is_tried(trainer_versions: dict[str, str]) -> None:
    rows = re.findall(r"^\| \[([^]]+)\]\([^)]*\)[^|]*\| ([0-9.]+) \|", PAGE, re.MULTILINE)
    named = {PACKAGES.get(name, name.lower()): version for name, version in rows}
    no_trainers = ("torch", "datasets", "optuna")
    assert named == {name: version for name, version in trainer_versions.items() if name not in no_trainers}
    assert f"torch {trainer_versions['torch'].split('+')[0]}" in PAGE


@pytest.mark.parametrize("example", sorted((ROOT / "examples" / "trainers").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs_at_tiny_size(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAX_STEPS", "4")
    assert runpy.run_path(str(example), run_name="__main__")
    assert len(example.read_text().splitlines()) <= 60
