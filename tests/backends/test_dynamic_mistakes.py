"""The dynamic lowering of OneFlow's Graph, used wrongly: each mistake is named and the process lives."""

import textwrap
from collections.abc import Callable
from typing import Any

InProcess = Callable[..., dict[str, Any]]

MISTAKES = {
    "no backward": (
        """
        class Forgot(Train):
            def build(self, x, y):
                return ((self.model(x) - y) ** 2).mean()
        graph = Forgot(model, updates.bind)
        attempt(lambda: graph(*batch(0)))
        """,
        "SpecError: Forgot.build computes no gradient",
    ),
    "model outside": (
        """
        class Outside(Train):
            def __init__(self):
                nn.Graph.__init__(self)
                self.kept = [model]
                self.model = nn.Linear(4, 3)
                updates.bind(self)
            def build(self, x, y):
                loss = ((self.model(x) + self.kept[0](x) - y) ** 2).mean()
                loss.backward()
                return loss
        graph = Outside()
        attempt(lambda: graph(*batch(0)))
        """,
        "SpecError: '0.weight' is not in Outside",
    ),
    "gradient accumulation": (
        """
        graph = Train(model, updates.bind)
        graph.config.set_gradient_accumulation_steps(2)
        attempt(lambda: graph(*batch(0)))
        """,
        "Unsupported: set_gradient_accumulation_steps",
    ),
    "bound twice": ("attempt(lambda: updates.bind(Train(model, updates.bind)))", "SpecError: Train has the updates"),
    "unfrozen late": (
        """
        model[0].weight.requires_grad = False
        late = DynamicUpdate(plan, model)
        model[0].weight.requires_grad = True
        graph = Train(model, late.bind)
        attempt(lambda: graph(*batch(0)))
        """,
        "SpecError: '0.weight' was frozen",
    ),
    "too few rates": ("attempt(lambda: updates.set([0.1]))", "SpecError: rates: 1 given; the plan has 3"),
    "NaN": ("attempt(lambda: updates.set([0.1, float('nan'), 0.1]))", "SpecError: rates: nan in it"),
    "negative": ("attempt(lambda: updates.set([0.1, -1.0, 0.1]))", "SpecError: rates: -1.0 in it"),
    "compiled momentum": (
        "attempt(lambda: updates.set([0.1] * 3, [None, 0.8, None]))",
        "Unsupported: group '2': momentum 0.5 is compiled",
    ),
    "momentum 0": (
        """
        more = DynamicUpdate(plan, model, varying_momentum=["0"])
        attempt(lambda: more.set([None] * 3, [0.0, None, None]))
        """,
        "Unsupported: group '0': a momentum that changes must stay above 0",
    ),
    "unknown group": (
        "attempt(lambda: DynamicUpdate(plan, model, varying_momentum=['x']))",
        "SpecError: varying momentum of 'x'",
    ),
    "unknown table": (
        "attempt(lambda: DynamicUpdate(plan, model, rate_tables={'x': [0.1]}))",
        "SpecError: a rate table for 'x'",
    ),
    "empty table": ("attempt(lambda: DynamicUpdate(plan, model, rate_tables={'0': []}))", "'0' is empty"),
    "table with inf": (
        "attempt(lambda: DynamicUpdate(plan, model, rate_tables={'0': [1.0, float('inf')]}))",
        "SpecError: the rate table of group '0': inf in it",
    ),
    "set against a table": (
        """
        more = DynamicUpdate(plan, model, rate_tables={"0": [0.1]})
        attempt(lambda: more.set([0.1, 0.1, 0.1]))
        """,
        "SpecError: group '0' follows a table",
    ),
    "half": ("attempt(lambda: DynamicUpdate(plan, mlp().half()))", "Unsupported: a OneFlow Graph whose rates change"),
}


def test_mistakes_are_named_and_the_process_lives(in_process: InProcess) -> None:
    """Each mistake in turn in one process, with a graph that trains after each of them."""
    bodies = "\n".join(
        f"def mistake_{index}(model, plan, updates):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
        for index, (body, _) in enumerate(MISTAKES.values())
    )
    got = in_process(
        bodies
        + textwrap.dedent("""
        heard = []
        def attempt(action):
            try:
                action()
                heard.append("nothing")
            except Exception as error:
                heard.append(f"{type(error).__name__}: {error}")
        def opened():
            model = start(mlp())
            plan = resolve(Spec(SGD(0.1, momentum=0.9), GROUPS), model)
            return model, plan, DynamicUpdate(plan, model)
        losses = []
        for index in range(int(sys.argv[1])):
            globals()[f"mistake_{index}"](*opened())
            model, plan, updates = opened()
            losses.append(float(Train(model, updates.bind)(*batch(0)).numpy()))
        answer(heard=heard, losses=len(set(losses)))
        """),
        str(len(MISTAKES)),
    )
    assert got["losses"] == 1
    assert len(got["heard"]) == len(MISTAKES)
    for said, (name, (_, expected)) in zip(got["heard"], MISTAKES.items(), strict=True):
        assert expected in said, name
