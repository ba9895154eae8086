"""Lightning's Trainer, with nothing that it would write to disk or show."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch

from benchmarks.opponents.job import Job, Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import Peer, loaders


class Module(lightning.LightningModule):  # type: ignore[misc]  # not installed where types are checked
    """The model, as Lightning wants it."""

    def __init__(self, job: Job, classes: int) -> None:
        super().__init__()
        self.job, self.model = job, build_torch(job, classes)
        self.losses: list[torch.Tensor] = []
        self.right: list[torch.Tensor] = []

    def training_step(self, batch: Any, _: int) -> Any:
        """A batch's loss."""
        loss = torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self) -> None:
        """A new count."""
        self.right = []

    def validation_step(self, batch: Any, _: int) -> None:
        """A test batch."""
        self.right.append((self.model(batch[0]).argmax(1) == batch[1]).float())

    def configure_optimizers(self) -> Any:
        """Two groups."""
        job = self.job
        groups = [
            {"params": self.model.features.parameters(), "lr": job.lr * job.scale},
            {"params": self.model.classifier.parameters(), "lr": job.lr},
        ]
        return torch.optim.SGD(groups, momentum=job.momentum, weight_decay=job.weight_decay)


class Loader:
    """A loader whose processes the Trainer does not end, which at times takes five seconds: ``Peer.rest`` does."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


class Opponent(Peer):
    """The Trainer; ``job``: as ``Job``'s arguments."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(job)
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on."""
        train, test, classes = loaders(self.job, one_batch)
        module = Module(self.job, classes)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="gpu" if self.job.device == "cuda" else "cpu",
            devices=1,
            precision="32-true" if self.job.autocast is None else "bf16-mixed",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(module, Loader(train), test)
        losses = torch.stack(module.losses).tolist()
        return plain(Trained(losses, float(torch.cat(module.right).mean()), {}))
