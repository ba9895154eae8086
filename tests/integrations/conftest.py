"""Specs in other trainers: ``make test-integrations`` runs these tests in an environment of its own, without a network.

``make test`` does not look into this folder (``norecursedirs`` in pyproject.toml).
"""

from __future__ import annotations

import importlib.metadata
import os

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # all of them are tried on the CPU
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

TRAINERS = (
    "lightning", "transformers", "peft", "accelerate", "timm", "pytorch-ignite", "monai", "fastai", "mmengine",
    "mosaicml", "keras", "datasets", "optuna",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-trainers", action="store_true", help="fail where a trainer is not installed")


def versions() -> dict[str, str]:
    """What is tried here, by package."""
    found = {}
    for name in ("torch", *TRAINERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def pytest_report_header() -> str:
    return "trainers: " + ", ".join(f"{name} {version}" for name, version in versions().items())


def pytest_configure(config: pytest.Config) -> None:
    missing = [name for name, version in versions().items() if version == "missing"]
    if missing and config.getoption("--require-trainers"):
        raise pytest.UsageError(f"not installed: {', '.join(missing)}. make test-integrations installs them.")


@pytest.fixture(scope="session")
def trainer_versions() -> dict[str, str]:
    return versions()
