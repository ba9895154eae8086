"""Whole runs in several processes of OneFlow's launcher, on the CPU, in processes of their own."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.support import many_targets
from tests.support.many_runs import make_data, make_phased_spec, make_stoppers, numbers_of


def run_in(count: int, folder: Path, *cases: str) -> list[dict[str, Any]]:
    """Call functions of this file in each of several processes, which take seconds to start.

    Args:
        count: How many processes.
        folder: Where they may write.
        cases: Names of the functions, each with its arguments after colons; each is given the folder first.

    Returns:
        For each process, what each function returned, or the text of its error.
    """
    ended = launch(count, "-m", "tests.support.many_oneflow_runs", str(folder), *cases)
    paths = [folder / f"answers_{rank}" for rank in range(count)]
    assert all(path.exists() for path in paths), ended.stdout + ended.stderr
    return [pickle.loads(path.read_bytes()) for path in paths]


def launch(count: int, *words: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Start a command by OneFlow's launcher, and wait for its end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "oneflow.distributed.launch", "--nproc_per_node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "--master_port", port, *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        start_new_session=True,  # the launcher ends its whole group
        check=False,
    )


def call(case: str, folder: str) -> Any:
    """What a function of this file returns, or the text of its error."""
    import layered_lr as ll

    name, *words = case.split(":")
    try:
        return globals()[name](folder, *words)
    except ll.LayeredLRError as error:
        return f"{type(error).__name__}: {error} {error.said_elsewhere}"
    except Exception:
        return traceback.format_exc()


def _net() -> Any:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(4 * 7 * 7, 4),
    )


def _net_with_batch_norm() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4))


def _own_net() -> Any:
    from oneflow import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.Tanh(), nn.Dropout(0.4), nn.Linear(6, 4))


def _run(backend: str, **changes: Any) -> dict[str, Any]:
    import torch

    import layered_lr as ll

    spec = changes.pop("spec", None) or ll.Spec(ll.SGD(lr=0.05, momentum=0.9), groups=[ll.Group("7.*", lr_scale=2)])
    torch.manual_seed(1)
    options: Any = {
        "backend": backend,
        "model": _net,
        "data": make_data(),
        "batch_size": 12,
        "epochs": 2,
        "progress": False,
        "precision": "float64",
        "seed": 3,
    }
    return numbers_of(ll.run(spec, **{**options, **changes}))


def plain(folder: str, backend: str) -> Any:
    """Two epochs."""
    return _run(backend)


def accumulated(folder: str, backend: str) -> Any:
    """Accumulation, clipping, a moving average, several phases, and a schedule that reacts to the accuracy."""
    return _run(backend, spec=make_phased_spec("7.*"), accumulate_steps=2, ema_decay=0.9, epochs=3)


def shares(folder: str, backend: str) -> Any:
    """Shares of classes: by label smoothing, by mixed images in parts, and by both."""
    import layered_lr as ll

    smooth, mix = ll.CrossEntropy(label_smoothing=0.2), ll.Mix(mixup=0.4, cutmix=1.0)
    return {
        "smoothed": _run(backend, loss=smooth),
        "mixed": _run(backend, mix=mix, accumulate_steps=2),
        "both": _run(backend, loss=smooth, mix=mix, epochs=1),
    }


def own_losses(folder: str, backend: str) -> Any:
    """Losses of one's own that are a mean over the images, each written in another way."""
    import oneflow as flow
    from torch import nn
    from torch.nn import functional

    import layered_lr as ll

    class Divides(flow.nn.Module):
        def forward(self, outputs: Any, targets: Any) -> Any:
            return flow.nn.functional.cross_entropy(outputs, targets) * outputs.shape[0] / targets.shape[0]

    losses = {
        "sum": lambda outputs, targets: functional.cross_entropy(outputs, targets, reduction="sum") / len(outputs),
        "rows": lambda outputs, targets: -functional.log_softmax(outputs, 1)[:, 1:].sum(1).mean(),
        "module": Divides(),
        "smooth": nn.CrossEntropyLoss(label_smoothing=0.1),
    }
    found = {name: _run(backend, loss=loss, epochs=1) for name, loss in losses.items()}
    return {**found, "mixed": _run(backend, loss=losses["smooth"], mix=ll.Mix(mixup=0.4), epochs=1)}


def no_classes(folder: str, backend: str, *kinds: str) -> Any:
    """Targets that are values, several labels of an image, or masks, with a last batch that does not divide."""
    import layered_lr as ll

    spec = ll.Spec(ll.AdamW(0.01), groups=[ll.Group("0.*", lr_scale=0.5)])
    more = {"drop_last": backend == "oneflow-graph"}
    return {kind: _run(backend, spec=spec, **{**many_targets.options_of(kind), **more}) for kind in kinds}


def constants(folder: str, backend: str) -> Any:
    """A model that makes tensors of numbers, and draws random ones."""
    import torch
    from torch import nn

    import layered_lr as ll

    class Makes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3072, 4)

        def forward(self, images: Any) -> Any:
            hidden = self.layer(images.flatten(1))
            hidden = torch.maximum(torch.where(hidden > 0, hidden, 0.1), torch.full_like(hidden, 0.05))
            if self.training:
                hidden = hidden + torch.rand_like(hidden)
            return hidden - torch.tensor([0.1, 0.2, 0.3, 0.4])

    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=Makes, epochs=1)


def looked_up(folder: str, backend: str, shift: str = "0") -> Any:
    """A model that looks up rows by pixels, of which each update shifts the places further."""
    import torch
    from torch import nn

    import layered_lr as ll

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Embedding(40, 4)
            self.register_buffer("shift", torch.zeros((), dtype=torch.int64))

        def forward(self, images: Any) -> Any:
            places = (images[:, 0, 0, :6] * 4).long().clamp(-9, 9).abs()
            if self.training:
                self.shift += int(shift)
            return self.rows(places + self.shift).mean(1)

    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=Looks)


def own_dropout(folder: str, backend: str) -> Any:
    """A model that is written in OneFlow, whose dropout draws by itself."""
    import oneflow as flow

    import layered_lr as ll

    def make() -> Any:
        flow.manual_seed(1)
        return _own_net()

    return _run(backend, spec=ll.Spec(ll.Adam(lr=0.01)), model=make, batch_size=22, drop_last=False, data=make_data(45))


def batch_norm(folder: str, backend: str) -> Any:
    """A batch normalisation, whose statistics are those of a process."""
    import layered_lr as ll

    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=_net_with_batch_norm)


def own_batch_norm(folder: str, backend: str) -> Any:
    """A batch normalisation in a model that is written in OneFlow."""
    import oneflow as flow

    import layered_lr as ll

    def make() -> Any:
        flow.manual_seed(1)
        nn = flow.nn
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 4))

    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=make)


def shared_batch_norm(folder: str, backend: str) -> Any:
    """A batch normalisation that is to see the images of all processes."""
    import layered_lr as ll

    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=_net_with_batch_norm, sync_batch_norm=True)


def rolled_back(folder: str, backend: str) -> Any:
    """Going back to a state, at lower rates."""
    import layered_lr as ll

    spec = ll.Spec(ll.SGD(lr=0.05), schedule=ll.MultiStepLR(milestones=[3], gamma=1e38))
    divergence = ll.Divergence("rollback", rollback_factor=1e-39)
    return _run(backend, spec=spec, divergence=divergence, precision="float32")


def stopped(folder: str, backend: str) -> Any:
    """Callbacks in different processes that stop the run, and leave a batch out."""
    return _run(backend, callbacks=make_stoppers(*_place()))


def _place() -> tuple[int, int]:
    return max(int(os.environ.get("RANK", "0")), 0), int(os.environ.get("WORLD_SIZE", "1"))


def kept(folder: str, backend: str) -> Any:
    """A run with a folder, of which the first epoch and a half are made."""
    return _run(backend, checkpoints=f"{folder}/run_{backend}", max_steps=6, save=f"{folder}/{backend}.npz")


def gone_on(folder: str, backend: str, run: str = "") -> Any:
    """The rest of it, or of another run."""
    import layered_lr as ll

    place = f"{folder}/{run or f'run_{backend}'}"
    return numbers_of(ll.resume(place, epochs=3, backend=backend, model=_net, data=make_data()))


def not_divided(folder: str, backend: str) -> Any:
    """A batch of which the processes cannot have equal shares."""
    return _run(backend, batch_size=13)


def last_batch(folder: str, backend: str) -> Any:
    """A last batch that is smaller, of which the processes cannot have equal shares."""
    return _run(backend, batch_size=14, drop_last=False, data=make_data(45))


def unlike_norms(folder: str, backend: str) -> Any:
    """A last batch of which one process would normalise a single image."""
    import layered_lr as ll

    changes: Any = {"batch_size": 12, "drop_last": False, "data": make_data(39)}
    return _run(backend, spec=ll.Spec(ll.SGD(lr=0.05)), model=_net_with_batch_norm, **changes)


def other_seed(folder: str, backend: str) -> Any:
    """Processes that differ in an option."""
    return _run(backend, seed=_place()[0])


def dies(folder: str, backend: str) -> Any:
    """The last process ends without a word in the middle of a run."""
    import layered_lr as ll

    rank, count = _place()

    class Dies(ll.Callback):
        def on_update(self, event: Any) -> None:
            if event.step == 3 and rank == count - 1:
                os.kill(os.getpid(), 9)

    return _run(backend, checkpoints=ll.Checkpoints(f"{folder}/died", every=1), callbacks=[Dies()])


def fails(folder: str, backend: str) -> Any:
    """The script of the last process ends, and the others wait for it."""
    import layered_lr as ll

    rank, count = _place()

    class Fails(ll.Callback):
        def on_update(self, event: Any) -> None:
            if event.step == 3 and rank == count - 1:
                raise SystemExit("this process leaves")

    return _run(backend, callbacks=[Fails()])


if __name__ == "__main__":
    place, *cases = sys.argv[1:]
    answers = {case: call(case, place) for case in cases}
    (Path(place) / f"answers_{_place()[0]}").write_bytes(pickle.dumps(answers))
