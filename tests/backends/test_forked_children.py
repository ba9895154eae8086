"""A forked child of a process that has run a graph (a data loader's worker, a pool) ends, whatever it collects."""

from __future__ import annotations

from typing import Any

from tests.support.isolation import values_of


def _fork_after_a_run(accumulate_steps: int) -> dict[str, int | None]:
    import gc
    import multiprocessing

    import oneflow

    import layered_lr as ll
    import layered_lr_oneflow.runtime  # noqa: F401  # before OneFlow itself
    from tests.support.models import arrays, mlp

    gc.collect()
    gc.disable()
    ll.run(
        ll.Spec(ll.SGD(0.1)),
        "oneflow-graph",
        mlp(oneflow),
        arrays(),
        max_steps=2,
        batch_size=8,
        accumulate_steps=accumulate_steps,
        progress=False,
    )
    left = sum(isinstance(each, oneflow.nn.Graph) for each in gc.get_objects())

    class Own(oneflow.nn.Graph):
        def __init__(self, model: object) -> None:
            super().__init__()
            self.model = model
            self.scheduler = ll.attach(ll.Spec(ll.SGD(0.1)), self, model)

        def build(self, images: object) -> object:
            loss = self.model(images).sum()
            loss.backward()
            return loss

    graphs = [Own(mlp(oneflow)()) for _ in range(2)]
    for graph in graphs:
        graph(oneflow.ones(2, 12)).numpy()
    graphs[0].cycle = graphs[0]

    def work() -> None:
        graphs.clear()
        gc.collect()

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    ended = child.exitcode
    if ended is None:
        child.kill()
    return {"graphs left after the run": left, "exit code of the child": ended}


def test_a_child_may_collect_and_drop_graphs(oneflow: Any) -> None:
    for answer in values_of(_fork_after_a_run, [(accumulate_steps,) for accumulate_steps in (1, 2)]):
        assert answer == {"graphs left after the run": 0, "exit code of the child": 0}
