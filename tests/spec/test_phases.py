"""Phases: what trains when and how, as the plan has it before anything trains."""

import math
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.spec import phases

PARAMETERS = [("body.a", (2, 2)), ("body.b", (2,)), ("head.w", (2, 2)), ("head.b", (2,))]
GROUPS = [ll.Group("body", lr_scale=0.1), ll.Group("head")]
COSINE = ll.CosineAnnealingLR(10)
ADAM = ll.Spec(ll.Adam(), [ll.Group("body", eps=1e-3)])


def plan_of(*timeline: ll.Phase, spec: ll.Spec | None = None, total: int | None = 12) -> ll.Plan:
    base = spec or ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, COSINE)
    values = {name: getattr(base, name) for name in ("optimizer", "groups", "schedule")}
    return ll.resolve(ll.Spec(**values, phases=timeline), PARAMETERS, total, 3)


def test_without_phases_there_are_no_segments() -> None:
    assert plan_of().phases == () and not plan_of().frozen
    assert plan_of().plan_at(5) is not None


def test_a_frozen_group_has_rate_zero_and_the_others_are_as_without() -> None:
    usual = plan_of().table()
    made = plan_of(ll.Phase("2 epochs", frozen="body"), ll.Phase())
    table = made.table()
    assert (table[:6, 0] == 0).all()
    np.testing.assert_array_equal(table[:, 1], usual[:, 1])
    np.testing.assert_array_equal(table[6:, 0], usual[6:, 0])
    assert [made.rates(step) for step in range(12)] == table.tolist()
    np.testing.assert_array_equal(made.at([11, 0, 6]), table[[11, 0, 6]])
    assert made.plan_at(5).frozen == {"body.a", "body.b"} and not made.plan_at(6).frozen


@pytest.mark.parametrize(
    ("phase", "frozen"),
    [
        (ll.Phase(frozen="body"), {"body.a", "body.b"}),
        (ll.Phase(frozen=0), {"body.a", "body.b"}),
        (ll.Phase(frozen=[-1, "body.a"]), {"head.w", "head.b", "body.a"}),
        (ll.Phase(frozen="*.b"), {"body.b", "head.b"}),
        (ll.Phase(trained=-1), {"body.a", "body.b"}),
        (ll.Phase(trained=["head.b"]), {"body.a", "body.b", "head.w"}),
        (ll.Phase(frozen="*"), {"body.a", "body.b", "head.w", "head.b"}),
        (ll.Phase(frozen=[]), set()),
    ],
    ids=["name", "index", "mixed", "pattern", "trained index", "trained pattern", "everything", "nothing"],
)
def test_what_is_frozen(phase: ll.Phase, frozen: set[str]) -> None:
    assert plan_of(phase).plan_at(0).frozen == frozen


def test_a_group_that_is_frozen_in_part_keeps_its_rate() -> None:
    assert plan_of(ll.Phase(frozen="*.b")).rates(0) == plan_of().rates(0)


def test_a_phase_says_what_it_changes_and_the_next_one_is_as_the_spec() -> None:
    made = plan_of(
        ll.Phase(4, optimizer=ll.AdamW(0.5), schedule=ll.Constant(), weight_decay=0.25),
        ll.Phase(8, groups=[ll.Group("head", lr=0.7, schedule=ll.Constant(), momentum=0.5)], clip_grad_norm=2),
        ll.Phase(),
    )
    first, second, third = (phase.plan for phase in made.phases)
    assert made.rates(0) == [0.05, 0.5] and isinstance(first.groups[0].optimizer, ll.AdamW)
    assert [group.optimizer.weight_decay for group in first.groups] == [0.25, 0.25]
    assert second.groups[1].optimizer == ll.SGD(0.7, momentum=0.5) and made.rates(5)[1] == 0.7
    assert second.spec.clip_grad_norm == 2 and third.spec.clip_grad_norm is None
    np.testing.assert_array_equal(made.table()[8:], plan_of().table()[8:])
    assert [group.parameters for group in second.groups] == [group.parameters for group in made.groups]


def test_schedules_count_from_the_run_or_from_the_phase() -> None:
    one_cycle = ll.OneCycleLR(1.0, cycle_momentum=False)
    made = plan_of(ll.Phase(4), ll.Phase(schedule=one_cycle, counts_from="phase"))
    alone = ll.resolve(ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, one_cycle), PARAMETERS, 8, 3)
    np.testing.assert_array_equal(made.table()[4:], alone.table())
    run = plan_of(ll.Phase(4), ll.Phase(schedule=one_cycle))
    whole = ll.resolve(ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, one_cycle), PARAMETERS, 12, 3)
    np.testing.assert_array_equal(run.table()[4:], whole.table()[4:])


def test_momenta_follow_the_phase() -> None:
    made = plan_of(ll.Phase(4), ll.Phase(schedule=ll.OneCycleLR(1.0), counts_from="phase"))
    assert made.momenta(3) == [None, None]
    assert made.momenta(4) == [0.95, 0.95]


def test_phases_beyond_the_end_never_begin() -> None:
    made = plan_of(ll.Phase(5), ll.Phase(20, frozen="body"), ll.Phase(30))
    assert [(phase.start, phase.stop) for phase in made.phases] == [(0, 5), (5, 12)]
    endless = plan_of(ll.Phase(5), ll.Phase(20), total=None)
    assert [(phase.start, phase.stop) for phase in endless.phases] == [(0, 5), (5, 20), (20, None)]
    assert endless.rates(1000) == plan_of(total=None).rates(1000)
    assert made.notes == ("phase 3 never begins: the run ends after 12 steps",)
    alone = plan_of(ll.Phase("5 steps", frozen="body"))
    assert [(phase.stop, sorted(phase.plan.frozen)) for phase in alone.phases] == [
        (5, ["body.a", "body.b"]), (12, [])
    ]  # fmt: skip
    assert alone.notes == ("phase 2 is the spec without phases: the last phase of the spec ends before the run",)
    assert plan_of(ll.Phase(5), ll.Phase(12)).notes == ()


def test_ready_timelines() -> None:
    first, then = phases.head_first(2)
    assert first == ll.Phase("2 epochs", trained=-1) and then == ll.Phase()
    assert phases.head_first("50 steps", head="head")[0] == ll.Phase("50 steps", trained="head")
    made = plan_of(*phases.gradual_unfreeze(["head.b", "head", "body"], every="2 steps"))
    assert [(s.stop, sorted(s.plan.frozen)) for s in made.phases] == [
        (2, ["body.a", "body.b", "head.w"]), (4, ["body.a", "body.b"]), (6, []), (12, [])
    ]  # fmt: skip
    assert phases.gradual_unfreeze(2) == phases.gradual_unfreeze([-1, -2])
    assert plan_of(*phases.freeze_for_good("*")).table().max() == 0
    assert phases.freeze_for_good(["body", -1]) == phases.freeze_for_good("body", -1)
    assert [phase.until for phase in phases.gradual_unfreeze(2, "1234567 steps")] == [
        "1234567 steps", "2469134 steps", None
    ]  # fmt: skip
    assert phases.gradual_unfreeze(3, 0.1)[2].until == "0.3 epochs"


def test_a_spec_with_phases_goes_through_toml_and_plans_through_tables() -> None:
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS, COSINE,
        phases=[
            ll.Phase("1.5 epochs", trained=[-1, "body.b"], batch_norm="moving", dropout="off"),
            ll.Phase(8, optimizer=ll.Lion(), carry="momentum", counts_from="phase", schedule=ll.StepLR(2)),
            ll.Phase(frozen=0, groups=[ll.Group("head", lr=0.3, schedule=ll.Constant())], momentum_warmup=5),
        ],
    )  # fmt: skip
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    plan = ll.resolve(spec, PARAMETERS, 12, 3)
    assert ll.plan_from_dict(plan.to_dict()) == plan
    assert [phase.start for phase in plan.phases] == [0, 4, 8]  # 1.5 epochs of 3 are 4.5 updates


def test_the_plan_shows_the_timeline() -> None:
    text = str(
        plan_of(ll.Phase("1 epoch", trained="head.b"), ll.Phase(9, frozen="*"), ll.Phase(optimizer=ll.Adam(1e-3)))
    )
    assert "phase 1: steps 0 to 2: 1 of 2 of head trains" in text
    assert "phase 2: steps 3 to 8: nothing trains" in text
    assert "phase 3: steps 9 to 11: everything trains, Adam(lr=0.001" in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ll.Phase("soon"), "until='soon': must be a text such as '3 epochs'"),
        (lambda: ll.Phase(0), "until=0: until must be a whole number >= 1"),
        (lambda: ll.Phase("0 steps"), "until='0 steps'"),
        (lambda: ll.Phase(True), "until=True"),
        (lambda: ll.Phase(2.5), "until=2.5"),
        (lambda: ll.Phase(frozen="a", trained="b"), "give only one of them"),
        (lambda: ll.Phase(frozen=1.5), "frozen=1.5: must be a group's name"),
        (lambda: ll.Phase(frozen=["["]), None),
        (lambda: ll.Phase(frozen="re:["), "not a valid regular expression"),
        (lambda: ll.Phase(carry="all"), "carry must be one of 'nothing' or 'momentum'"),
        (lambda: ll.Phase(optimizer="SGD"), "must be an optimizer of layered_lr"),
        (lambda: ll.Phase(untill=3), "Did you mean 'until'?"),
        (lambda: plan_of(ll.Phase(), ll.Phase(3)), "phase 1: needs until"),
        (lambda: plan_of(ll.Phase(5), ll.Phase(5)), "phase 2: until=5 is update 5, but the phase begins at update 5"),
        (lambda: plan_of(ll.Phase(5), ll.Phase("1 epoch")), "phase 2: until='1 epoch' is update 3"),
        (lambda: plan_of(ll.Phase(frozen="boddy")), "frozen='boddy' matches none of the 4 parameters"),
        (lambda: plan_of(ll.Phase(frozen=2)), "phase 1: frozen=2: the plan has 2 groups: body, head"),
        (lambda: plan_of(ll.Phase(groups=[ll.Group("haed")])), "the spec has no group 'haed'. Did you mean 'head'"),
        (
            lambda: plan_of(ll.Phase(groups=[ll.Group("x", name="head")])),
            "'head' matches 'head' in the whole run, but 'x' in this phase",
        ),
        (lambda: ll.Spec(ll.SGD(), phases=["x"]), "phases: 'x' is not a Phase"),
        (lambda: ll.resolve(ll.Spec(ll.SGD(), phases=[ll.Phase("1 epoch")]), PARAMETERS), "give steps_per_epoch"),
        (lambda: plan_of(ll.Phase(optimizer=ll.SGD()), spec=ADAM), "phase 1: group 'body' sets eps, which SGD"),
        (lambda: phases.gradual_unfreeze([]), "order is empty"),
        (lambda: phases.gradual_unfreeze("head"), "order='head': must be a list"),
        (lambda: phases.gradual_unfreeze(None), "order=None: must be a list"),
        (lambda: phases.freeze_for_good(), "name what does not train"),
        (lambda: phases.head_first(math.inf), "a number of epochs > 0"),
        (lambda: ll.Phase("9" * 400 + " steps"), "must be a text such as '3 epochs'"),
        (lambda: ll.Phase("1.5 steps"), "until='1.5 steps': must be a text such as"),
        (lambda: phases.head_first(0), "a number of epochs > 0"),
        (lambda: phases.head_first("later"), "'later': must be a text such as"),
        (lambda: ll.Spec.from_dict({"optimizer": {"type": "SGD"}, "phases": {"until": 3}}), "write [[phases]]"),
        (lambda: ll.Spec.from_dict({"optimizer": {"type": "SGD"}, "phases": [3]}), "phases: 3 is not a table"),
    ],
    ids=lambda value: None if callable(value) else "".join(c for c in str(value)[:24] if c.isalnum()),
)  # fmt: skip
def test_wrong_input(make: Any, message: str | None) -> None:
    if message is None:
        make()  # a glob like any other
        return
    with pytest.raises(ll.SpecError) as caught:
        make()
    assert message in str(caught.value)


def test_the_plan_says_what_phases_cost_in_a_graph() -> None:
    parameters = [(f"layer{number}.weight", (2, 2)) for number in range(6)]
    groups = [ll.Group(f"layer{number}") for number in range(6)]

    def text(*phases: ll.Phase) -> str:
        return str(ll.resolve(ll.Spec(ll.SGD(0.1), groups, phases=phases), parameters, 100, 10))

    assert "at step 10 another one is compiled" in text(ll.Phase(10, frozen="layer0"), ll.Phase())
    assert "frozen parameters are compiled out" in text(ll.Phase(frozen="layer0"))
    many = text(*ll.phases.gradual_unfreeze(5))
    assert "one graph for all 6 phases" in many
    assert "set each step" in many
    assert "another one is compiled" not in many
