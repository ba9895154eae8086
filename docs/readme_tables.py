"""The tables of the documentation that are made from the code: ``python -m docs.readme_tables`` renews them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.frame.pages import replace_part
from docs.generated import options_table
from layered_lr.errors import Unsupported
from layered_lr.optimizers import OPTIMIZERS, SGD, Optimizer
from layered_lr.plans.lowering import lowering_of
from layered_lr.plans.resolve import resolve
from layered_lr.schedules import (
    SCHEDULES,
    WSD,
    ChainedScheduler,
    Constant,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CosineDecay,
    CyclicLR,
    ExponentialLR,
    Function,
    InverseSqrt,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    Schedule,
    SequentialLR,
    StepLR,
    Table,
    Warmup,
)
from layered_lr.spec.spec import Spec

BEGIN, END = "<!-- {}: made by docs.readme_tables -->", "<!-- end of {} -->"

# One of each, with as little said as it takes.
EXAMPLES: tuple[Schedule, ...] = (
    Constant(),
    StepLR(30),
    MultiStepLR([30, 60]),
    ConstantLR(),
    LinearLR(),
    ExponentialLR(0.9),
    PolynomialLR(),
    CosineAnnealingLR(50),
    CosineAnnealingWarmRestarts(10),
    CyclicLR(0.01, 0.1),
    OneCycleLR(0.1),
    LambdaLR("math:tanh"),
    MultiplicativeLR("math:tanh"),
    SequentialLR([Constant(), ExponentialLR(0.9)], [5]),
    ChainedScheduler([Constant(), ExponentialLR(0.9)]),
    ReduceLROnPlateau(),
    Warmup(10),
    CosineDecay(),
    InverseSqrt(10),
    WSD(10, 20),
    Table([0.1, 0.2] * 500),
    Function("math:tanh"),
)


def schedule_table() -> str:
    """Every schedule, and how each kind of backend applies it, as Markdown."""
    rows = [
        [f"`{type(schedule).__name__}`", _first_line(type(schedule)), *_cells(schedule)]
        for schedule in sorted(EXAMPLES, key=lambda example: list(SCHEDULES).index(type(example).__name__))
    ]
    return tabulate(rows, ["schedule", "the rate", "torch, oneflow-eager", "oneflow-graph"], tablefmt="github")


def signature_table() -> str:
    """Every schedule's arguments and defaults, without the two that all of them take, as Markdown."""
    rows = [
        [f"`{name}`", f"`{', '.join(_arguments(kind))}`" if _arguments(kind) else ""]
        for name, kind in SCHEDULES.items()
    ]
    return tabulate(rows, ["schedule", "arguments and defaults"], tablefmt="github")


def _arguments(kind: type[Any]) -> list[str]:
    shown = []
    for field in fields(kind):
        if field.name in ("unit", "every_step"):
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if default is MISSING:
            shown.append(field.name)
        else:
            words = f"{default:.4g}" if isinstance(default, float) else repr(default)
            shown.append(f"{field.name}={words}")
    return shown


def optimizer_table() -> str:
    """Every optimizer, and what makes its updates on each kind of backend, as Markdown."""
    columns = {
        "torch": ("torch-eager", "float32"),
        "oneflow-eager": ("oneflow-eager", "float32"),
        "oneflow-graph": ("oneflow-graph", "float32"),
        "OneFlow in float64": ("oneflow-graph", "float64"),
    }
    kinds: dict[str, Any] = dict(OPTIMIZERS)
    rows = [[f"`{name}`", *(_update(kind(), *column) for column in columns.values())] for name, kind in kinds.items()]
    return tabulate(rows, ["optimizer", *columns], tablefmt="github")


def _update(optimizer: Optimizer, backend: str, dtype: str) -> str:
    plan = resolve(Spec(optimizer), [("weight", (2, 2), (), dtype)], total_steps=1000)
    try:
        (lowering,) = lowering_of(plan, backend)
    except Unsupported:
        return "with `compile` only" if backend == "torch-eager" else "refused"
    return lowering.update.partition(", as torch")[0]


def _first_line(kind: type[Any]) -> str:
    return (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


def _cells(schedule: Schedule) -> tuple[str, str]:
    eager = "rate and momentum set each step" if schedule.drives_momentum else "set each step"
    if schedule.start_reaction(0.1):
        eager = "set each step, decided while training"
    return eager, _graph(schedule)


def _graph(schedule: Schedule) -> str:
    spec = Spec(SGD(0.1, momentum=0.9), schedule=schedule)
    (lowering,) = lowering_of(resolve(spec, [("weight", (1,))], total_steps=1000), "oneflow-graph")
    if schedule.drives_momentum:
        return "dynamic; native table with `cycle_momentum=False`"
    return "native" if lowering.schedule == "native" else lowering.how.partition(" of ")[0]


# Each table's name, as its place on a page says it, and what makes it.
TABLES: dict[str, Callable[[], str]] = {
    "options": options_table,
    "schedules": schedule_table,
    "signatures": signature_table,
    "optimizers": optimizer_table,
}


def renewed(text: str) -> str:
    """A page's text with its made tables made anew."""
    for name, table in TABLES.items():
        begin, end = BEGIN.format(name), END.format(name)
        if begin in text:
            text = replace_part(text, begin, end, table())
    return text


def pages() -> list[Path]:
    """Every page that may hold a table."""
    return sorted(Path(__file__).parent.glob("*.md"))


if __name__ == "__main__":
    for page in pages():
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
