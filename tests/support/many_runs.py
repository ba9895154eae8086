"""Whole runs in several processes with ``torch.distributed``: gloo, on the CPU, in processes of their own."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import signal
import subprocess
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.registry import load_attribute
from tests.support import many_targets
from tests.support.isolation import run_side_by_side

SPEC_SEED = 3


def run_in(count: int, *cases: str, folder: str = "") -> list[dict[str, Any]]:
    """Call functions of this file in each of several processes.

    Args:
        count: How many processes.
        cases: Names of the functions, or ``module:name`` of others; each is given ``folder``.
        folder: Where they may write.

    Returns:
        For each process, what each function returned, or the text of its error; and its ``stderr``.
    """
    with tempfile.TemporaryDirectory() as place:
        run_side_by_side(count, _begin, count, cases, place, folder)
        return [pickle.loads((Path(place) / str(rank)).read_bytes()) for rank in range(count)]


def _begin(rank: int, count: int, cases: tuple[str, ...], place: str, folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    said = Path(place) / f"{rank}.stderr"
    own, sink = os.dup(2), os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(sink, 2)  # also of what torch's engines write by themselves
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}/store", rank=rank, world_size=count)
    answers = {case: call(case, folder) for case in cases}
    os.dup2(own, 2)
    answers["stderr"] = said.read_text()
    (Path(place) / str(rank)).write_bytes(pickle.dumps(answers))
    torch.distributed.destroy_process_group()


def call(case: str, folder: str = "") -> Any:
    """What a function of this file returns, or the text of its error."""
    import layered_lr as ll

    try:
        function = load_attribute(case) if ":" in case else globals()[case]
        return function(folder)
    except ll.LayeredLRError as error:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return traceback.format_exc()


def make_net() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * 7 * 7, 4),
    )


def make_data(count: int = 48) -> Any:
    import layered_lr as ll

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (72, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(72) % 4
    return ll.Dataset("made", images[:count], labels[:count], images[48:], labels[48:], augment=True)


def train(**changes: Any) -> dict[str, Any]:
    import torch

    import layered_lr as ll

    spec = changes.pop("spec", None) or ll.Spec(ll.SGD(lr=0.05, momentum=0.9), groups=[ll.Group("8.*", lr_scale=2)])
    torch.manual_seed(1)
    options: Any = {
        "backend": "torch-eager",
        "model": make_net,
        "data": make_data(),
        "batch_size": 12,
        "epochs": 2,
        "progress": False,
        "precision": "float64",
        "sync_batch_norm": True,
        "seed": SPEC_SEED,
    }
    return numbers_of(ll.run(spec, **{**options, **changes}))


def numbers_of(result: Any) -> dict[str, Any]:
    """What two runs must have in common."""
    return {
        "losses": result.losses,
        "accuracies": result.accuracies,
        "norms": result.grad_norms,
        "rates": np.stack(list(result.rates.values())),
        "events": [event["event"] for event in result.events],
        **{f"weights {name}": value for name, value in result.weights.items()},
        **{f"average {name}": value for name, value in result.ema_weights.items()},
        **{f"logged {name}": rows for name, rows in result.logged.items()},
    }


def plain(folder: str) -> Any:
    """Two epochs."""
    return train()


def watched(folder: str) -> Any:
    """A log that asks the first process alone for answers; mixed images, and a loss of one's own."""
    import torch

    import layered_lr as ll

    def loss(outputs: Any, targets: Any) -> Any:
        return -(targets * torch.nn.functional.log_softmax(outputs, 1)).sum(1).mean()

    log = ll.TensorBoard(Path(folder) / "log", wrong_answers=4)
    return train(loss=loss, mix=ll.Mix(mixup=0.4, cutmix=1.0), callbacks=[log])


def no_classes(folder: str) -> Any:
    """Targets that are values, several labels of an image, and masks, with a last batch that does not divide."""
    import layered_lr as ll

    spec = ll.Spec(ll.AdamW(0.01), groups=[ll.Group("0.*", lr_scale=0.5)])
    return {kind: train(spec=spec, **many_targets.options_of(kind)) for kind in many_targets.TARGETS}


_CALLS: list[str] = []


def falls_in_the_first(metrics: Any) -> float:
    """A number that becomes smaller at each call in the first process, and larger in all others."""
    _CALLS.append("function")
    return float(-len(_CALLS) if find_place()[0] == 0 else len(_CALLS))


def falls_in_the_first_too(outputs: Any, targets: Any) -> float:
    """The same, as a metric of outputs and targets."""
    _CALLS.append("metric")
    return float(-len(_CALLS) if find_place()[0] == 0 else len(_CALLS))


def reacting(folder: str) -> Any:
    """Rates, and an early end, by numbers that are others in each process."""
    import layered_lr as ll

    own = ll.ReduceLROnPlateau("min", 0.5, patience=0, metric="own")
    schedule = ll.ReduceLROnPlateau("min", 0.5, patience=0, metric=falls_in_the_first)
    _CALLS.clear()
    return train(
        spec=ll.Spec(ll.SGD(0.05), groups=[ll.Group("8.*", schedule=own)], schedule=schedule),
        metrics={"own": falls_in_the_first_too},
        early_stop=ll.EarlyStop("own", mode="min", patience=1, restore_best=True),
        epochs=4,
    )


def raises_in_the_last(metrics: Any) -> float:
    """A number in all processes but the last one."""
    rank, count = find_place()
    if rank == count - 1:
        raise KeyError("share")
    return 1.0


def asking_in_vain(folder: str) -> Any:
    """A schedule whose function fails in one process."""
    import layered_lr as ll

    return train(spec=ll.Spec(ll.SGD(0.05), schedule=ll.ReduceLROnPlateau(metric=raises_in_the_last)))


class FailsInTheLast:
    """The number of outputs; at the second evaluation it fails in the last process, before all batches are there."""

    def __init__(self) -> None:
        self.evaluations = self.seen = 0

    def reset(self) -> None:
        self.evaluations += 1
        self.seen = 0

    def update(self, outputs: Any, targets: Any) -> None:
        rank, count = find_place()
        if self.evaluations == 2 and rank == count - 1:
            raise KeyError("share")
        self.seen += len(outputs)

    def compute(self) -> float:
        return float(self.seen)


def measured_in_vain(folder: str) -> Any:
    """A metric that fails in one process: what the run that goes on from its end is, and one that never failed."""
    import layered_lr as ll

    given: Any = {"model": make_net, "data": make_data()}
    try:
        train(metrics={"seen": FailsInTheLast()}, checkpoints=f"{folder}/in-vain")
    except ll.SpecError as error:
        said = str(error)
    metric = FailsInTheLast()
    metric.evaluations = 2
    gone_on = ll.resume(f"{folder}/in-vain", metrics={"seen": metric}, trust=True, **given)
    return {"said": said, "gone_on": numbers_of(gone_on), "whole": train()}


def accumulated(folder: str) -> Any:
    """Accumulation, clipping, a moving average, several phases, and a schedule that reacts to the accuracy."""
    return train(spec=make_phased_spec("8.*"), accumulate_steps=2, ema_decay=0.9, epochs=3)


def diverging(folder: str) -> Any:
    """A loss that is not finite, found by all."""
    import layered_lr as ll

    return train(spec=ll.Spec(ll.SGD(lr=1e30)), precision="float32")


def rolled_back(folder: str) -> Any:
    """Going back to a state, at lower rates."""
    import layered_lr as ll

    return train(
        spec=ll.Spec(ll.SGD(lr=1e30)), divergence=ll.Divergence("rollback", rollback_factor=1e-32), precision="float32"
    )


def make_stoppers(rank: int, count: int) -> list[Any]:
    """A callback that stops the run in the last process, and one that leaves out a batch in the first one."""
    import layered_lr as ll

    class Stops(ll.Callback):
        def on_update(self, event: Any) -> None:
            if event.step == 4 and rank == count - 1:
                event.run.stop("enough")

    class Skips(ll.Callback):
        def on_batch(self, event: Any) -> None:
            if event.step == 2 and rank == 0 and not done:
                done.append(True)
                event.skip("odd")

    done: list[bool] = []
    return [Stops(), Skips()]


def make_phased_spec(head: str) -> Any:
    """Clipping, several phases, and a schedule of the head that reacts to the accuracy."""
    import layered_lr as ll

    return ll.Spec(
        ll.AdamW(lr=0.01),
        groups=[ll.Group(head, schedule=ll.ReduceLROnPlateau(patience=0))],
        clip_grad_norm=0.5,
        phases=[ll.Phase(until=3, frozen=["0.*"]), ll.Phase()],
    )


def unfit_group(folder: str) -> Any:
    """A process group that cannot send what is on the CPU, as NCCL's: torch's words are those of its own group."""
    from torch import distributed

    own = distributed.all_reduce

    def fail(tensor: Any, *more: Any, **named: Any) -> Any:
        if not named:
            raise RuntimeError("No backend type associated with device type cpu")
        return own(tensor, *more, **named)

    distributed.all_reduce = fail
    try:
        return train()
    finally:
        distributed.all_reduce = own


def halted(folder: str) -> Any:
    """The last process sleeps once, and is stopped once."""
    import layered_lr as ll
    from layered_lr_torch import silent_processes

    rank, count = find_place()

    class Halts(ll.Callback):
        def on_batch(self, event: Any) -> None:
            if count == 1 or rank != count - 1:
                return
            if event.step == 2:
                time.sleep(1.6)
            if event.step == 5:
                subprocess.Popen(["sh", "-c", f"sleep 1.6; kill -CONT {os.getpid()}"])
                os.kill(os.getpid(), signal.SIGSTOP)

    period, silent_processes.PERIOD = silent_processes.PERIOD, 0.2  # type: ignore[misc]
    try:
        return train(callbacks=[Halts()])
    finally:
        silent_processes.PERIOD = period  # type: ignore[misc]


def used_at_times(folder: str) -> Any:
    """A layer that takes part in some updates alone, a head that is in none, and a phase that thaws."""
    import torch
    from torch import nn

    import layered_lr as ll

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU())
            self.extra, self.head, self.unused = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)
            self.passes = 0

        def forward(self, images: Any) -> Any:
            hidden = self.body(images)
            self.passes += self.training
            return self.head(self.extra(hidden) if self.passes % 3 == 1 else hidden)

    spec = ll.Spec(
        ll.SGD(0.05, momentum=0.9, weight_decay=0.1), phases=[ll.Phase(until=2, frozen=["body.*"]), ll.Phase()]
    )
    return train(model=Odd, spec=spec)


def stopped(folder: str) -> Any:
    """Callbacks in different processes that stop the run, and leave a batch out."""
    return train(callbacks=make_stoppers(*find_place()))


def find_place() -> tuple[int, int]:
    import torch

    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_initialized() else (0, 1)


def kept(folder: str) -> Any:
    """A run with a folder, of which the first epoch and a half are made."""
    return train(checkpoints=f"{folder}/run", max_steps=6, save=f"{folder}/result.npz")


def gone_on(folder: str) -> Any:
    """The rest of it."""
    import layered_lr as ll

    return numbers_of(ll.resume(f"{folder}/run", epochs=3, model=make_net, data=make_data()))


def gone_on_apart(folder: str) -> str:
    """The rest of it, where each process has a folder of its own, and one has lost the newest checkpoint."""
    import shutil

    import layered_lr as ll

    rank, _ = find_place()
    own = Path(shutil.copytree(f"{folder}/run", f"{folder}/own-{rank}"))
    if rank:
        shutil.rmtree(own / "checkpoints" / "step-00000006")
    try:
        ll.resume(own, epochs=3, model=make_net, data=make_data())
    except ll.LayeredLRError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def not_divided(folder: str) -> Any:
    """A batch of which the processes cannot have equal shares."""
    return train(batch_size=13)


def more_than_images(folder: str) -> Any:
    """A batch of fewer images than processes."""
    return train(batch_size=1)


def uneven_last_batch(folder: str) -> Any:
    """A last batch of which the processes cannot have equal shares: mixed, clipped, averaged, in phases."""
    import layered_lr as ll

    mix = ll.Mix(mixup=0.4)
    return train(
        batch_size=20, drop_last=False, data=make_data(47), spec=make_phased_spec("8.*"), ema_decay=0.9, mix=mix
    )


def lone_last_image(folder: str) -> Any:
    """A last batch of fewer images than processes, and a folder."""
    return train(batch_size=12, drop_last=False, data=make_data(37), checkpoints=f"{folder}/lone", max_steps=3)


def lone_gone_on(folder: str) -> Any:
    """The rest of it."""
    import layered_lr as ll

    return numbers_of(ll.resume(f"{folder}/lone", epochs=3, model=make_net, data=make_data(37)))


def unlike_norms(folder: str) -> Any:
    """A last batch of which one process would normalise a single image."""
    return train(batch_size=12, drop_last=False, data=make_data(39), sync_batch_norm=False)


def other_backends(folder: str) -> Any:
    """Backends that train in one process."""
    return [call_run(backend=name) for name in ("torch-compile", "oneflow-eager", "oneflow-graph")]


def call_run(**changes: Any) -> str:
    """The text of the error of a run."""
    import layered_lr as ll

    try:
        train(**changes)
    except ll.LayeredLRError as error:
        return f"{type(error).__name__}: {error} {error.said_elsewhere}"
    return "no error"


def _make_loss(factor: float) -> Any:
    import torch

    def loss(outputs: Any, targets: Any) -> Any:
        return factor * torch.nn.functional.cross_entropy(outputs, targets)

    return loss


def _make_schedule(power: int) -> Any:
    def factor(step: int) -> float:
        return 0.9 ** (power * step)

    factor.__qualname__ = factor.__name__ = "own_factor"
    globals()["own_factor"] = factor  # where its import path leads
    return factor


def _make_late_schedule(rank: int) -> Any:
    def own_late_factor(step: int) -> float:
        return 0.5 if step == 1 and rank else 1.0

    own_late_factor.__qualname__ = own_late_factor.__name__
    globals()["own_late_factor"] = own_late_factor
    return own_late_factor


def _make_answer(sign: int) -> Any:
    def own_answer(metrics: Any) -> float:
        return float(sign * metrics["loss"])

    own_answer.__qualname__ = own_answer.__name__
    globals()["own_answer"] = own_answer
    return own_answer


def _make_net(dropout: float = 0.2, dtype: str = "float32") -> Any:
    import torch

    def build() -> Any:
        net = make_net().to(getattr(torch, dtype))
        net[6].p = dropout
        return net

    return build


def silently_other(folder: str) -> dict[str, str]:
    """Ranks that differ in what no option names."""
    import torch

    import layered_lr as ll

    class Watches(ll.Callback):
        def on_batch(self, event: Any) -> None:
            pass

    rank, _ = find_place()
    data, one = make_data(), ["a", "b", "c", "d"]
    named = ll.Dataset(
        "made", data.x_train, data.y_train, data.x_test, data.y_test, class_names=one[::-1] if rank else one
    )
    start = {name: tensor + rank for name, tensor in make_net().state_dict().items()}
    found = {
        "loss": call_run(loss=_make_loss(1.0 + rank)),
        "class names": call_run(data=named),
        "weights": call_run(initial_weights=start),
        "callbacks": call_run(callbacks=[Watches()] if rank else []),
        "log": call_run(callbacks=[] if rank else [ll.CSV(f"{folder}/rows.csv")], max_steps=1),
        "dtype": call_run(model=_make_net(dtype="float64" if rank else "float32"), precision="float32"),
        "dropout": call_run(model=_make_net(dropout=0.2 + 0.1 * rank)),
        "schedule": call_run(spec=ll.Spec(ll.SGD(0.1), schedule=ll.LambdaLR(_make_schedule(1 + rank)))),
        "late schedule": call_run(
            spec=ll.Spec(ll.SGD(0.1), schedule=ll.LambdaLR(_make_late_schedule(rank))), epochs=99
        ),
        "plateau": call_run(
            spec=ll.Spec(ll.SGD(0.1), schedule=ll.ReduceLROnPlateau("min", metric=_make_answer(1 + rank)))
        ),
        "lambda": call_run(spec=ll.Spec(ll.SGD(0.1), schedule=ll.LambdaLR(lambda step: 0.5))),
        "unseeded": call_run(model=_shifted_net(rank), max_steps=1),
    }
    version, torch.__version__ = torch.__version__, f"{torch.__version__}{'.x' * rank}"
    found["version"] = call_run()
    torch.__version__ = version
    importlib.metadata.version, real = (  # type: ignore[assignment]
        lambda name: f"{real(name)}{'.x' * (name == 'torchvision') * rank}",
        importlib.metadata.version,
    )
    found["package"] = call_run()
    importlib.metadata.version = real
    return found


def _shifted_net(rank: int) -> Any:
    import torch

    def build() -> Any:
        net = make_net()
        torch.nn.init.constant_(net[8].bias, rank)
        return net

    return build


def other_recipe(folder: str) -> Any:
    """Ranks that differ in the spec, in an option, or in the data."""
    import layered_lr as ll

    rank, _ = find_place()
    data = make_data()
    other = ll.Dataset("made", data.x_train[::-1], data.y_train, data.x_test, data.y_test)
    return [
        call_run(spec=ll.Spec(ll.SGD(lr=0.1 + rank))),
        call_run(seed=rank),
        call_run(data=other if rank else data),
        call_run(initial_weights=f"{folder}/missing.npz" if rank else None),
    ]
