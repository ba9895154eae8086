"""Lightning: the head trains first, then everything, each part at its own rate. See docs/trainers.md."""

from __future__ import annotations

import os
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

import layered_lr as ll
from layered_lr_torch.integrations import lightning as ll_lightning

spec = ll.Spec(
    ll.AdamW(1e-3),
    groups=[ll.Group("body", lr_scale=0.1), ll.Group("head")],
    schedule=ll.CosineDecay(warmup_steps=1),
    phases=[ll.Phase("2 steps", frozen="body"), ll.Phase()],
)


class Classifier(lightning.LightningModule):
    """Digits by a small network."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU())
        self.head = torch.nn.Linear(32, 10)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """The loss of a batch."""
        return torch.nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        """The one line."""
        return ll_lightning.configure_optimizers(spec, self)


data = load_digits()
images = torch.tensor(data.data / 16, dtype=torch.float32)
loader = DataLoader(TensorDataset(images, torch.tensor(data.target)), batch_size=64)
trainer = lightning.Trainer(
    max_steps=int(os.environ.get("MAX_STEPS", "60")),
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    callbacks=[ll_lightning.log_rates()],
)
trainer.fit(Classifier(), loader)
print({name: float(value) for name, value in trainer.callback_metrics.items()})
