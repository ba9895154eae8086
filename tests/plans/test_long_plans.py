"""Plans of very many steps: what is printed of them takes no more memory than what is printed of a short one."""

import json
import math
import tracemalloc

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.plans.export import json_text
from layered_lr_oneflow.lowering import LONGEST_TABLE, make_rate_table

PARAMETERS = [("body.w", (2,)), ("head.w", (2,))]
SCHEDULES = [
    None,
    ll.StepLR(30),
    ll.CosineDecay(warmup_steps=5),
    ll.OneCycleLR(0.1, cycle_momentum=False),
    ll.ChainedScheduler([ll.Warmup(5), ll.StepLR(30)]),
    ll.CyclicLR(0.01, 0.1, step_size_up=100, cycle_momentum=False),
    ll.WSD(10, 100),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_plan_of_a_billion_steps_prints_in_little_memory(schedule: ll.Schedule | None) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], schedule)
    plan = ll.resolve(spec, PARAMETERS, total_steps=10**9, steps_per_epoch=1000)
    tracemalloc.start()
    text = str(plan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1,000,000,000 steps" in text and peak < 40 * 2**20


@pytest.mark.parametrize("total", [1, 2, 65_535, 65_536, 65_537, 200_000])
def test_a_table_of_rates_is_the_same_in_blocks(total: int) -> None:
    schedule = ll.Function(lambda step: 0.1 + 1e-3 * (step // 1024))
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=schedule), [("w", (2,))], total)
    rates = plan.rates_before_scale(plan.groups[0], np.arange(total))
    last = np.flatnonzero(np.diff(rates)).tolist()
    assert make_rate_table(plan, plan.groups[0]) == (last, [*rates[last].tolist(), rates[-1]])


@pytest.mark.parametrize(("changes", "how"), [(0, "native table"), (1, "dynamic")])
def test_the_longest_table_is_counted_over_blocks(changes: int, how: str) -> None:
    values = np.linspace(0.1, 0.2, LONGEST_TABLE + changes).tolist()
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.Table([*values, values[-1], values[-1]]))
    assert ll.resolve(spec, [("w", (2,))], LONGEST_TABLE + 2).lowering("oneflow-graph")["rest"].startswith(how)


def test_a_limit_that_only_measures_is_no_infinity_in_json() -> None:
    phases = [ll.Phase("2 steps", clip_grad_norm=math.inf), ll.Phase()]
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), clip_grad_norm=math.inf, phases=phases), PARAMETERS, 4)
    table = json.loads(json_text(plan), parse_constant=lambda name: pytest.fail(name))
    assert table["spec"]["phases"][0]["clip_grad_norm"] == table["spec"]["clip_grad_norm"] == "inf"


HUGE = 10**400


@pytest.mark.parametrize(
    "write",
    [
        lambda: ll.Spec(ll.SGD(0.1), clip_grad_norm=HUGE),
        lambda: ll.Phase("1 epoch", clip_grad_norm=HUGE),
        lambda: ll.Spec(ll.SGD(0.1), clip_grad_value=HUGE),
        lambda: ll.SGD(HUGE),
        lambda: ll.Group("a", HUGE),
        lambda: ll.AdamW(0.1, betas=(0.9, HUGE)),
        lambda: ll.phases.head_first(HUGE),
        lambda: ll.phases.gradual_unfreeze(2, HUGE),
        lambda: ll.CosineAnnealingLR(HUGE),
        lambda: ll.StepLR(2)(0, HUGE),
        lambda: ll.StepLR(2)(HUGE, 0.1),
        lambda: ll.Divergence("rollback", rollback_factor=HUGE),
        lambda: ll.plan(max_steps=-HUGE),
        lambda: ll.Spec(ll.SGD(0.1), clip_grad_norm=10**5000 * -1),
        lambda: ll.SGD(-(10**5000)),
        lambda: ll.Phase(-(10**5000)),
    ],
)
def test_a_number_too_large_for_a_float_is_refused(write) -> None:
    with pytest.raises(ll.SpecError):
        write()


DEEP = "[" * 400 + "]" * 400


@pytest.mark.parametrize(
    "text",
    [
        f"[optimizer]\ntype='SGD'\nlr={DEEP}",
        f"[optimizer]\ntype='SGD'\nlr=0.1\n[schedule]\ntype='StepLR'\nstep_size={'9' * 5000}",
        f"[optimizer]\ntype='SGD'\nlr={'9' * 5000}",
        f"[optimizer]\ntype='SGD'\nlr=0.1\n[run]\ndata={'[' * 100 + ']' * 100}",
        "[optimizer]\ntype='SGD'\nlr=0.1\n[schedule]\n" + "a.b.c.d.e.f.g.h.i.j.k" + ".x" * 900 + "=1",
        "[optimizer]\ntype='SGD'\nlr=0.1\nschedule=" + "{type='ChainedScheduler',schedulers=[" * 60 + "]}" * 60,
        "[optimizer]\ntype='SGD'\nlr=0.1\nlr=" + "{a=" * 3000,
    ],
)
def test_toml_that_is_deep_or_has_endless_numbers_is_refused(text: str) -> None:
    with pytest.raises(ll.SpecError) as caught:
        ll.Spec.from_toml(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
