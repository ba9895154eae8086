"""What does mixed precision cost in ``ll.run``, beside torch's autocast and GradScaler in a loop written by hand?

    python -m benchmarks.mixed_precision [--rounds 5] [--quick]

The time of an update is the difference of two lengths, so that set-up, first update and evaluation count for neither.
A CPU may have no fast float16: the figures beside float32 then say so.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import layered_lr as ll
from benchmarks.frame.command import main, say
from benchmarks.frame.report import Ratio, Report, Series, Target, ratio
from benchmarks.frame.rounds import alternated

SPEC = ll.Spec(ll.SGD(0.01), [ll.Group("features", lr_scale=0.1)])
PRECISIONS = ("float32", "bf16", "fp16")
_BATCH, _SHORT = 16, 2


def run_seconds(precision: str, steps: int, **options: Any) -> float:
    """Of one run."""
    began = time.perf_counter()
    said: dict[str, Any] = {"batch_size": _BATCH, "augment": False, "progress": False, "precision": precision}
    ll.run(SPEC, max_steps=steps, **said, **options)
    return time.perf_counter() - began


def hand_seconds(precision: str, steps: int, build: Callable[[], Any]) -> float:
    """Of a loop of torch on one batch of random images, of the digits' size."""
    import torch

    began = time.perf_counter()
    torch.manual_seed(0)
    model = build()
    images, labels = torch.randn(_BATCH, 3, 32, 32), torch.randint(10, (_BATCH,))
    images = images.to(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
    optimizer, _ = ll.compile(SPEC, model)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return time.perf_counter() - began


class MixedPrecision:
    """``ll.run`` and a loop by hand, in each precision."""

    name = "mixed_precision"
    question = "What does an update cost in bfloat16 and float16, beside float32 and beside a loop by hand?"
    rounds = 5

    def run(self, rounds: int, quick: bool) -> Report:
        """All in turn, in this process."""
        from benchmarks.opponents.models import tiny_torch

        long = _SHORT + (2 if quick else 6)
        options: dict[str, Any] = {"model": tiny_torch} if quick else {}

        def build() -> Any:
            from torchvision.models import mobilenet_v2

            return tiny_torch() if quick else mobilenet_v2(num_classes=10)

        def each(seconds: Callable[..., float], precision: str, *more: Any, **named: Any) -> float:
            lasted = seconds(precision, long, *more, **named) - seconds(precision, _SHORT, *more, **named)
            return max(1e3 * lasted / (long - _SHORT), 1e-6)

        turns: dict[str, Callable[[], float]] = {}
        for precision in PRECISIONS:
            turns[f"ll.run, {precision}"] = functools.partial(each, run_seconds, precision, **options)
            turns[f"by hand, {precision}"] = functools.partial(each, hand_seconds, precision, build)
        taken = alternated(turns, rounds, say=say)
        if taken.failed:
            return Report(self.name, self.question, missing=taken.failed)
        series = {name: Series(name, "time of an update", "ms", tuple(taken.values[name])) for name in turns}
        ratios: list[Ratio] = []
        for precision in PRECISIONS[1:]:
            ours = series[f"ll.run, {precision}"]
            ratios += [
                ratio(ours, series[f"by hand, {precision}"], Target(1.1)),
                ratio(ours, series["ll.run, float32"]),
            ]
        note = f"MobileNetV2, batch {_BATCH}, 32x32, no augmentation, torch-eager; fp16 with torch's GradScaler."
        return Report(self.name, self.question, tuple(series.values()), tuple(ratios), notes=(note,))


BENCHMARK = MixedPrecision()

if __name__ == "__main__":
    main(BENCHMARK)
