"""Plans and certificates with 1, 12 and 60 groups, as their pages meet them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

import layered_lr as ll
from layered_lr.parity.comparison import Comparison
from layered_lr.parity.findings import Observed, Pair
from layered_lr.parity.outcome import Outcome
from layered_lr.parity.verdict import Departure, Verdict

COUNTS = (1, 12, 60)
NAMES = ("torch-eager", "oneflow-eager", "oneflow-graph")
_STEPS = 40


def plan_of(count: int, steps: int = 400) -> ll.Plan:
    """A plan of that many groups: with a warm-up, and with more than one group a frozen one, a head and ``rest``."""
    shape = (16, 8)
    if count == 1:
        schedule = ll.Warmup(5, ll.CosineAnnealingLR(steps // 2), unit="epoch")
        return ll.resolve(ll.Spec(ll.SGD(0.002, momentum=0.9), schedule=schedule), [("stem.weight", shape)], steps, 20)
    blocks = [f"features.{number:02}.conv" for number in range(count - 2)]
    parameters = [(f"{name}.weight", shape) for name in [*blocks, "norm", "classifier"]]
    groups = [ll.Group(name, lr_scale=0.8 ** (count - number)) for number, name in enumerate(blocks)]
    head = ll.Group("classifier", name="head", lr=0.2, schedule=ll.Warmup(30, ll.CosineAnnealingLR(steps)))
    phases = [ll.Phase("3 epochs", frozen=blocks[: count // 4]), ll.Phase("10 epochs", frozen=blocks[0]), ll.Phase()]
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9, weight_decay=1e-4), [*groups, head], ll.CosineAnnealingLR(steps), phases=phases
    )
    return ll.resolve(spec, parameters, steps, 20)


def search_of(count: int) -> ll.RateSearch:
    """What ``find_lr`` would find with that many groups and three seeds; made by hand, so that it takes no time."""
    lr = np.geomspace(1e-5, 10, 100)
    curve = 2 - np.exp(-2 * np.log10(lr) ** 2)
    groups = [ll.Group(f"features.{number:02}.conv", lr_scale=0.8**number) for number in range(count)]
    scales = {group.label: group.lr_scale for group in groups}
    return ll.RateSearch(
        backend="torch-eager",
        spec=ll.Spec(ll.SGD(0.1), groups),
        group=None,
        base=0.1,
        scales=scales,
        fixed={},
        lr=lr,
        losses=np.array([curve, 1.02 * curve, 0.98 * curve]),
        rates={name: scale * lr for name, scale in scales.items()},
        seeds=(0, 1, 2),
        smoothing=0.9,
        stop_factor=4.0,
        stopped=("", "", ""),
    )


def certificate_of(count: int, faulty: bool = False) -> Comparison:
    """What ``compare`` would find of ``plan_of(count)`` on three backends; made by hand, so that it takes no time.

    Args:
        count: Of groups.
        faulty: Whether the last backend has another gradient.
    """
    plan = plan_of(count)
    random = np.random.default_rng(count)
    sections = (*(group.name for group in plan.groups), "buffers")
    rates = plan.table(0, _STEPS)
    moves = np.append((rates > 0).any(axis=0), True)
    rows = np.arange(_STEPS + 1, dtype=np.float64)

    def size(*shape: int) -> Any:
        return 10 ** random.uniform(-8, -6, shape)

    observed = {
        name: Observed(
            losses=2.0 - 0.01 * np.arange(_STEPS),
            rates=rates,
            probed_rates=np.where(rates > 0, rates * (1 + 1e-7), np.nan),
            grad_norms=np.ones_like(rates),
            update_norms=np.where(moves, np.ones((_STEPS, len(sections))), 0.0),
            loss_bits=1.0,
            ended="",
            versions={"torch" if name.startswith("torch") else "oneflow": "1.0"},
            seconds=1.0,
        )
        for name in NAMES
    }
    allowed = {
        "loss": size(_STEPS, 1),
        "rate": size(_STEPS, count),
        "gradient norm": size(_STEPS, count),
        "update norm": size(_STEPS, len(sections)),
        "weights": np.maximum.accumulate(size(_STEPS + 1, len(sections)), axis=0),
        "probe: bare": size(_STEPS, count),
    }
    pairs = []
    for one, other in combinations(NAMES, 2):
        bitwise = one != NAMES[0]
        differences = {what: values * (0.0 if bitwise else 0.01) for what, values in allowed.items()}
        for what in ("update norm", "weights"):
            differences[what] = np.where(moves, differences[what], 0.0)
        verdict = Verdict("same within rounding", None, None, "nothing differs by more than rounding explains", ())
        if bitwise:
            verdict = Verdict("same bitwise", None, None, "every loss and weight is the same to the last bit", ())
        if faulty and other == NAMES[-1]:
            first = Departure("gradient norm", 3, plan.groups[-1].name, None, 0.1, 1e-6, "float64")
            differences["gradient norm"] = allowed["gradient norm"] * 1e4
            verdict = Verdict(
                "different",
                "backward",
                first,
                "the same loss has another gradient at update 3: the backward pass differs",
                (first,),
            )
        shares = {what: values / allowed[what] for what, values in differences.items()}
        asked = {what: differences[what] for what in ("loss", "weights")}
        pairs.append(Pair(one, other, verdict, "float64", differences, allowed, shares, asked))
    return Comparison(
        reference=NAMES[0],
        plan=plan,
        steps=_STEPS,
        outcomes={name: Outcome(name, "ran", 0, "") for name in NAMES},
        observed=observed,
        pairs=tuple(pairs),
        sections=sections,
        rows=rows,
        uninformative=dict.fromkeys(sections),
        cannot_tell={},
        margin=66.0,
        samples=2,
        notes=(),
        options={"precision": {"dtype": "float32", "autocast": None}, "batch_size": 64, "steps": _STEPS},
    )
