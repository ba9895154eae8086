"""Batch normalisations that take mean and variance over the images of all processes.

torch's ``SyncBatchNorm`` does the same on GPUs alone. The layers stay where they are, with their names and tensors.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm

from layered_lr.errors import Unsupported
from layered_lr_torch.torch_types import Module, Tensor

_KNOWN = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)


def share_batch_norms(model: Module) -> None:
    """Let every batch normalisation of a model see the images of all processes, in training.

    Raises:
        Unsupported: One has a forward pass of its own.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, _SharedBatchNorm):
            continue
        kind = type(module)
        if kind not in _KNOWN and kind.forward not in {known.forward for known in _KNOWN}:
            raise Unsupported(
                f"sync_batch_norm=True: {name!r} is a {kind.__name__} with a forward pass of its own, whose statistics "
                "cannot be taken over all processes. Leave sync_batch_norm out, or use torch's BatchNorm2d."
            )
        module.__class__ = _shared(kind)  # type: ignore[arg-type]  # a class is hashable


def count_images(does_count: bool) -> None:
    """Say whether the images of this process count in the next passes, or only stand in for none."""
    _SharedBatchNorm.counts = does_count


@functools.cache
def _shared(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    return type(kind.__name__, (_SharedBatchNorm, kind), {"__module__": kind.__module__})


class _SharedBatchNorm(_BatchNorm):
    """A batch normalisation whose statistics in training are those of all processes.

    Attributes:
        counts: Whether this process's images count in the statistics of all of them.
    """

    counts: ClassVar[bool] = True

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in evaluation mode as torch does."""
        if not (self.training or not self.track_running_stats):
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        output, mean, variance, count = _Normalise.apply(
            input, self.weight, self.bias, self.eps, _SharedBatchNorm.counts
        )
        if self.training and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                unbiased = variance * (count / (count - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        return output  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """Normalises by the mean and variance of all processes' images, forward and backward."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, does_count: bool
    ) -> Any:
        """Shapes: ``input`` (N, C, ...), ``weight`` and ``bias`` (C,). An input that does not count joins in alone."""
        wide = input if input.dtype == torch.float64 else input.float()
        dims = [dim for dim in range(wide.dim()) if dim != 1]
        count = wide.numel() // wide.shape[1] if does_count else 0
        own_variance, own_mean = torch.var_mean(wide, dims, correction=0)
        own = torch.stack([own_mean, own_variance, torch.full_like(own_mean, count)])
        every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(every, own)
        means, variances, counts = torch.stack(every).unbind(1)  # each (processes, C)
        total = counts.sum(0)
        shares = counts / total
        mean = (shares * means).sum(0)
        variance = (shares * (variances + (means - mean).square())).sum(0)
        if float(total[0]) <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
        inverse = torch.rsqrt(variance + eps)
        shape = [1, -1] + [1] * (input.dim() - 2)
        scale = inverse if weight is None else inverse * weight.to(wide.dtype)
        output = (wide - mean.view(shape)) * scale.view(shape)
        if bias is not None:
            output = output + bias.to(wide.dtype).view(shape)
        ctx.save_for_backward(wide, weight, mean, inverse, total)
        ctx.does_count = does_count
        ctx.has_bias, ctx.bias_dtype = bias is not None, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(mean, variance, total)
        return output.to(input.dtype), mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients of this process's input, and of weight and bias by this process's images."""
        wide, weight, mean, inverse, total = ctx.saved_tensors
        given = gradients[0]
        gradient = given.to(wide.dtype)
        dims = [dim for dim in range(wide.dim()) if dim != 1]
        shape = [1, -1] + [1] * (wide.dim() - 2)
        normed = (wide - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([gradient.sum(dims), (gradient * normed).sum(dims)])
        sums = own.clone()
        dist.all_reduce(sums)
        towards_input = None
        if ctx.needs_input_grad[0]:
            scale = inverse if weight is None else inverse * weight.to(wide.dtype)
            by_mean, by_variance = (sums / total).unbind(0)
            towards_input = gradient
            if ctx.does_count:  # else the statistics do not depend on these images
                towards_input = gradient - by_mean.view(shape) - normed * by_variance.view(shape)
            towards_input = (towards_input * scale.view(shape)).to(given.dtype)
        towards_weight = own[1].to(weight.dtype) if weight is not None and ctx.needs_input_grad[1] else None
        towards_bias = own[0].to(ctx.bias_dtype) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return towards_input, towards_weight, towards_bias, None, None
