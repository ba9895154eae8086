"""Runs in several processes in which something of the user's raises in one of them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support import many_runs

AT = 2
"""The update at which it raises: the last but one of an epoch of four."""
KINDS = ("begin", "batch", "update", "evaluation", "epoch", "checkpoint", "end")


def _make_callback(kind: str, writes: bool) -> Any:
    """A callback that raises once, in the first process if it writes, else in the last one."""
    import layered_lr as ll

    rank, count = many_runs.find_place()
    chosen = 0 if writes else count - 1

    def fail(self: Any, event: Any) -> None:
        if rank == chosen and (kind not in ("batch", "update") or event.step == AT) and self.has_to:
            self.has_to = False
            raise OSError("no disk")

    made = type(f"Fails{kind.title()}", (ll.Callback,), {f"on_{kind}": fail, "has_to": True, "writes": writes})
    return made()


def raised(folder: str) -> dict[str, Any]:
    """For each kind of event: what the run said, and what the run that goes on from there is."""
    import layered_lr as ll

    found: dict[str, Any] = {"whole": many_runs.train()}
    for kind in KINDS:
        place = f"{folder}/raised-{kind}"
        said = many_runs.call_run(checkpoints=place, callbacks=[_make_callback(kind, writes=kind == "epoch")])
        newest = max(path.name for path in Path(place, "checkpoints").glob("step-*"))
        gone_on = ll.resume(place, model=many_runs.make_net, data=many_runs.make_data(), callbacks=[])
        found[kind] = said, int(newest.removeprefix("step-")), many_runs.numbers_of(gone_on)
    return found


def raised_without_a_folder(folder: str) -> list[str]:
    """What such runs say; a callback hears batches in the first process alone, and one changes them there."""
    import layered_lr as ll

    class Changes(ll.Callback):
        writes = True

        def on_batch(self, event: Any) -> None:
            event.images = event.images + 1

    class Misfits(ll.Callback):
        def on_batch(self, event: Any) -> None:
            if many_runs.find_place()[0]:
                event.images = event.images[:, :1]

    given = [_make_callback("update", False), _make_callback("batch", True), Changes(), Misfits()]
    return [many_runs.call_run(callbacks=[each]) for each in given]


def stopped_at_a_checkpoint(folder: str) -> Any:
    """The first process alone asks to stop, when all have agreed on what this update brings."""
    import layered_lr as ll

    class Stops(ll.Callback):
        def on_checkpoint(self, event: Any) -> None:
            if event.run.step == 4 and not many_runs.find_place()[0]:
                event.run.stop("enough")

    return many_runs.train(checkpoints=f"{folder}/stopped", callbacks=[Stops()])


def diverged_in_one(folder: str) -> str:
    """The first process alone reads each loss, and is the first to see that one is not finite."""
    import layered_lr as ll

    class Reads(ll.Callback):
        writes = True

        def on_update(self, event: Any) -> None:
            float(event.loss)

    return many_runs.call_run(spec=ll.Spec(ll.SGD(lr=1e30)), precision="float32", callbacks=[Reads()])
