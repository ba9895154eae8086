"""timm: its loader, its optimizer factory and its scheduler, in a loop as its training script has one."""

from __future__ import annotations

from typing import Any

import timm.optim
import timm.scheduler
import timm.utils
import torch
from timm.data import create_loader

from benchmarks.opponents.job import Trained, plain
from benchmarks.opponents.models import build_torch
from benchmarks.peers.loaders import WORKERS, Peer, datasets, kept


class Opponent(Peer):
    """The loop; ``job``: as ``Job``'s arguments."""

    def train(self, epochs: int, one_batch: bool = False) -> dict[str, Any]:
        """From new weights on."""
        job = self.job
        train_set, test_set, classes = datasets(job, one_batch)
        transforms = train_set.transform, test_set.transform
        size = train_set.pixels.shape[1]
        shared: dict[str, Any] = {"input_size": (3, size, size), "batch_size": job.batch_size, "use_prefetcher": False}
        train = kept(create_loader(train_set, is_training=True, num_workers=WORKERS, **shared))
        test = create_loader(test_set, is_training=False, num_workers=0, persistent_workers=False, **shared)
        train_set.transform, test_set.transform = transforms  # the same augmentation as everybody's
        model = build_torch(job, classes)
        groups = [
            {"params": list(model.features.parameters()), "lr_scale": job.scale},
            {"params": list(model.classifier.parameters()), "lr_scale": 1.0},
        ]
        optimizer = timm.optim.create_optimizer_v2(
            groups, opt="momentum", lr=job.lr, momentum=job.momentum, weight_decay=job.weight_decay
        )
        scheduler = timm.scheduler.StepLRScheduler(optimizer, decay_t=10**6, t_in_epochs=False)
        scheduler.step_update(0)  # lr_scale is applied by the scheduler alone
        loss_function = torch.nn.CrossEntropyLoss()
        losses, updates, top = [], 0, timm.utils.AverageMeter()
        for _ in range(epochs):
            model.train()
            meter = timm.utils.AverageMeter()
            for images, labels in train:
                optimizer.zero_grad()
                loss = loss_function(model(images), labels)
                loss.backward()
                optimizer.step()
                updates += 1
                meter.update(loss.item(), len(images))
                losses.append(meter.val)
                scheduler.step_update(updates, metric=meter.avg)
            model.eval()
            top = timm.utils.AverageMeter()
            with torch.no_grad():
                for images, labels in test:
                    (right,) = timm.utils.accuracy(model(images), labels)
                    top.update(right.item() / 100, len(images))
        return plain(Trained(losses, top.avg, {}))
