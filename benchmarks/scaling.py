"""What does an update cost in two processes, and what would it cost in up to 1,024?

    python -m benchmarks.scaling [--rounds 7] [--quick]

``ll.run`` on the CPU, connected by gloo, with one thread and 16 images for each process. *Communication's part* is the
difference of an update of two processes and one of two processes that train at the same time and exchange nothing.
Collectives are counted by torch's profiler, which sees those of ``DistributedDataParallel`` too; the bytes that a
process sends are those that its sockets have counted, beside the formula.

The model (``benchmarks.many_processes.cost_model``): an update is the work of a process alone, and one message after
the other, each with a cost for every step and for every byte. Both costs are fitted to all-reduces of some sizes
between two processes, and checked on other sizes, on four processes, and on updates of two networks.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.frame.command import main, say
from benchmarks.frame.report import Curve, Ratio, Report, Series, Target
from benchmarks.frame.rounds import alternated
from benchmarks.groups import MANY, ONE
from benchmarks.many_processes.cost_model import Network, fit, sent_bytes
from benchmarks.many_processes.ranks import Ranks
from benchmarks.many_processes.traffic import Collective, without_gradients

IMAGES = 16  # of each process
FITTED = (4, 1024, 16_384, 262_144, 1_048_576, 4_194_304, 16_777_216)
CHECKED = (256, 65_536, 2_097_152, 8_388_608)
COUNTS = (2, 8, 32, 128, 512, 1024)
ASSUMED = Network(10e-6, 8 / 100e9)  # of a cluster that nobody has measured here
_HERE, _CLUSTER = "connected as here", "10 µs a step, 100 Gbit/s (assumed)"
_LARGE, _WIDE = "MobileNetV2", "a wide network"


@dataclass(frozen=True)
class Counted:
    """The collectives of one process.

    Args:
        update: Of one update.
        evaluation: Of the evaluation of a test set of one batch.
        checkpoint: Of a checkpoint, and of the decision to write it.
        start: Of all that comes before the first update.
        gradient_bytes: Of all gradients.
    """

    update: Sequence[Collective]
    evaluation: Sequence[Collective]
    checkpoint: Sequence[Collective]
    start: Sequence[Collective]
    gradient_bytes: int

    @classmethod
    def of(cls, ranks: Ranks, count: int, model: str) -> Counted:
        """Those of the first process of some; all processes have the same."""
        found = ranks.call("collectives", model=model, batch=count * IMAGES)[0]
        gradient_bytes = found.pop("gradient_bytes")
        lists = {name: [Collective(*each) for each in these] for name, these in found.items()}
        return cls(**lists, gradient_bytes=gradient_bytes)

    @property
    def ours(self) -> list[Collective]:
        """Those of an update that bring no gradients."""
        return without_gradients(self.update, self.gradient_bytes) if self.update else []

    @property
    def facts_bytes(self) -> int:
        """What a process tells all others at the start, so that they find out whether they differ."""
        return sum(each.payload_bytes for each in self.start if each.kind == "all_gather")


class Scaling:
    """``ll.run`` in one and in two processes, and a model of more."""

    name = "scaling"
    question = "What does an update cost in two processes, and by a model of it in 8 to 1,024?"
    rounds = 7

    def run(self, rounds: int, quick: bool) -> Report:
        """All in turn, each in processes of its own."""
        models = {_LARGE: "tiny" if quick else "mobilenet_v2", _WIDE: "tiny" if quick else "wide"}
        updates, repeats = (5, 2) if quick else (14, 20)
        of_four = 4096 if quick else 1_048_576
        with Ranks(4) as four:
            counted = {4: Counted.of(four, 4, models[_LARGE])}
            among_four = _reduced(four, of_four, repeats, rounds)
        with ExitStack() as stack:
            one, two = stack.enter_context(Ranks(1)), stack.enter_context(Ranks(2))
            apart = stack.enter_context(Ranks(2, connected=False))
            counted |= {count: Counted.of(ranks, count, models[_LARGE]) for count, ranks in ((1, one), (2, two))}
            wide = Counted.of(two, 2, models[_WIDE])
            sent = two.call("sent_bytes", model=models[_LARGE], batch=2 * IMAGES, updates=updates)
            reduced, checked = (
                {size: _reduced(two, size, repeats, rounds) for size in sizes}
                for sizes in ((FITTED[:2], CHECKED[:1]) if quick else (FITTED, CHECKED))
            )
            taken = _updates(one, two, apart, models, rounds, updates)
        network = fit({size: statistics.median(seconds) for size, seconds in reduced.items()}, 2)
        errors = []
        for count, size, seconds in [*((2, *each) for each in checked.items()), (4, of_four, among_four)]:
            whole = network.seconds(_all_reduce(size), count)
            errors.append(_error(f"all-reduce of {size:,} bytes, {count} processes", [whole], seconds))
        for name, of in ((_LARGE, counted[2]), (_WIDE, wide)):
            between = network.total_seconds(of.update, 2)
            predicted = [alone + between for alone in taken[f"{name}, 2 processes that exchange nothing"].rounds]
            errors.append(_error(f"update of {name}, 2 processes", predicted, taken[f"{name}, 2 processes"].rounds))
        series = (
            *taken.values(),
            *_parts(taken),
            Series("counted by its sockets", "sent by a process in an update", "MB", (statistics.mean(sent) / 1e6,)),
            Series("by the formula", "sent by a process in an update", "MB", (sent_bytes(counted[2].update, 2) / 1e6,)),
            *_counts(counted),
            Series("of a step", "the model's costs, fitted", "µs", (1e6 * network.alpha_seconds,)),
            Series("of a megabyte", "the model's costs, fitted", "µs", (1e12 * network.beta_seconds,)),
            *errors,
        )
        return Report(
            self.name,
            self.question,
            series,
            _ratios(taken),
            (*_predicted(taken, counted[2], network), *_lines(reduced, network)),
            notes=_notes(taken, counted, network),
        )


def _all_reduce(size_bytes: int) -> Collective:
    return Collective("all_reduce", "float", size_bytes)


def _reduced(ranks: Ranks, size_bytes: int, repeats: int, rounds: int) -> tuple[float, ...]:
    """Seconds of an all-reduce, a value for each round."""
    found = [max(ranks.call("reduce_seconds", size_bytes=size_bytes, count=repeats)) for _ in range(rounds)]
    say(f"all-reduce of {size_bytes} bytes: {found}")
    return tuple(found)


def _updates(
    one: Ranks, two: Ranks, apart: Ranks, models: Mapping[str, str], rounds: int, updates: int
) -> dict[str, Series]:
    """The time of an update of each opponent; those that exchange nothing train at the same time."""
    wanted = {
        f"{_LARGE}, 1 process": (one, IMAGES, _LARGE, ONE),
        f"{_LARGE}, 1 process, 158 groups": (one, IMAGES, _LARGE, MANY),
        f"{_LARGE}, 2 processes": (two, 2 * IMAGES, _LARGE, ONE),
        f"{_LARGE}, 2 processes, 158 groups": (two, 2 * IMAGES, _LARGE, MANY),
        f"{_LARGE}, 2 processes that exchange nothing": (apart, IMAGES, _LARGE, ONE),
        f"{_WIDE}, 2 processes": (two, 2 * IMAGES, _WIDE, ONE),
        f"{_WIDE}, 2 processes that exchange nothing": (apart, IMAGES, _WIDE, ONE),
    }

    def seconds(ranks: Ranks, batch: int, model: str, groups: str) -> float:
        found = ranks.call("update_seconds", model=models[model], batch=batch, groups=groups, updates=updates)
        return float(max(found))

    taken = alternated({name: functools.partial(seconds, *of) for name, of in wanted.items()}, rounds, say=say)
    if taken.failed:
        raise RuntimeError(f"not measured: {taken.failed}")
    return {name: Series(name, "time of an update", "s", tuple(found)) for name, found in taken.values.items()}


def _parts(taken: Mapping[str, Series]) -> list[Series]:
    """Communication's part of an update, round by round; noise can make it negative where it is small."""
    found = []
    for name in (_LARGE, _WIDE):
        both = [taken[f"{name}, {how}"].rounds for how in ("2 processes", "2 processes that exchange nothing")]
        parts = tuple(100 * (together - apart) / together for together, apart in zip(*both, strict=True))
        found.append(Series(name, "communication's part of an update, 2 processes", "%", parts))
    return found


def _counts(counted: Mapping[int, Counted]) -> list[Series]:
    """How many collectives there are."""
    found = []
    for count, of in sorted(counted.items()):
        name = f"{count} processes" if count > 1 else "1 process"
        kinds = {
            "an update, beside those of gradients": of.ours,
            "an evaluation, for each batch": of.evaluation,
            "a checkpoint": of.checkpoint,
        }
        found += [Series(name, f"collectives of {what}", "", (float(len(these)),)) for what, these in kinds.items()]
    return found


def _error(name: str, predicted: Sequence[float], measured: Sequence[float]) -> Series:
    """How far the model is off, of each round; above 0 where it says too much.

    Args:
        name: Of what it says.
        predicted: Of each round, or one number for all.
        measured: Of each round.
    """
    all_rounds = predicted if len(predicted) == len(measured) else list(predicted) * len(measured)
    apart = tuple(100 * (said / found - 1) for said, found in zip(all_rounds, measured, strict=True))
    return Series(name, "error of the model, not fitted on this", "%", apart)


def _ratios(taken: Mapping[str, Series]) -> tuple[Ratio, ...]:
    """What 158 groups cost beside one: in two processes, and how much more that is than in one."""

    def cost(processes: str) -> tuple[float, ...]:
        many, one = taken[f"{_LARGE}, {processes}, 158 groups"].rounds, taken[f"{_LARGE}, {processes}"].rounds
        return tuple(a / b for a, b in zip(many, one, strict=True))

    alone, together = cost("1 process"), cost("2 processes")
    beside = tuple(a / b for a, b in zip(together, alone, strict=True))
    return (
        Ratio("158 groups / 1 group, 1 process", "time of an update", alone),
        Ratio("158 groups / 1 group, 2 processes", "time of an update", together),
        Ratio("158 groups / 1 group, 2 processes / 1 process", "time of an update", beside, Target(1.02)),
    )


def _group_seconds(taken: Mapping[str, Series]) -> float:
    """What one more group costs an update, in one process."""
    return (taken[f"{_LARGE}, 1 process, 158 groups"].median - taken[f"{_LARGE}, 1 process"].median) / 157


def _predicted(taken: Mapping[str, Series], counted: Counted, network: Network) -> list[Curve]:
    """An update of 158 groups over the number of processes, each with as many images: nothing overlaps."""
    work = taken[f"{_LARGE}, 2 processes that exchange nothing"].median + 157 * max(0.0, _group_seconds(taken))
    found = []
    for name, of in ((_HERE, network), (_CLUSTER, ASSUMED)):
        for quantity, base, these in (
            ("time of an update, predicted", work, counted.update),
            ("of it: what is not gradients", 0.0, counted.ours),
        ):
            ys = tuple((base + of.total_seconds(these, count),) for count in COUNTS)
            found.append(Curve(name, "processes", quantity, "s", tuple(map(float, COUNTS)), ys))
    return found


def _lines(reduced: Mapping[int, tuple[float, ...]], network: Network) -> list[Curve]:
    """All-reduces over their size, measured and fitted."""
    sizes = tuple(map(float, reduced))
    fitted = tuple((network.seconds(_all_reduce(size), 2),) for size in reduced)
    quantity = "time of an all-reduce, 2 processes"
    return [
        Curve("measured", "bytes", quantity, "s", sizes, tuple(reduced.values())),
        Curve("fitted", "bytes", quantity, "s", sizes, fitted),
    ]


def _notes(taken: Mapping[str, Series], counted: Mapping[int, Counted], network: Network) -> tuple[str, ...]:
    two, most = counted[2], COUNTS[-1]
    buckets = len(two.update) - len(two.ours)
    ours = ", ".join(f"{each.kind} of {each.payload_bytes:,} bytes" for each in two.ours)
    by_the_ring = " and ".join(
        f"{of.total_seconds(two.ours, most):.3g} s ({name})" for name, of in ((_HERE, network), (_CLUSTER, ASSUMED))
    )
    facts, facts_of_all = f"{two.facts_bytes:,} bytes", f"{two.facts_bytes * most / 1e6:.3g} MB"
    return (
        f"{IMAGES} images and one thread for each process, gloo on one machine; four processes share its cores.",
        f"An update exchanges {two.gradient_bytes:,} bytes of gradients in all-reduces of torch's, {buckets} of them. "
        f"Beside them: {ours}. Their number and size do not depend on the number of processes; by the model they take "
        f"{by_the_ring} in {most:,} processes. Nothing overlaps in the model, and small messages go around the ring "
        "as gloo's do: an engine with trees is faster.",
        f"A group more costs an update {1e6 * _group_seconds(taken):.2g} µs in one process, and sends nothing.",
        f"What grows with the number of processes is at the start, once: each tells all others {facts}, so that each "
        f"takes {facts_of_all} in {most:,} processes.",
    )


BENCHMARK = Scaling()

if __name__ == "__main__":
    main(BENCHMARK)
