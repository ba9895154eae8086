"""A graph that Python collects while another one is compiled would take the other's variables with it."""

from __future__ import annotations

from typing import Any

from tests.support import graph_process


def test_a_graph_compiles_while_old_ones_are_garbage(oneflow: Any) -> None:
    lowerings = ["native", "dynamic"]
    answers = graph_process.run_each(
        """
        import gc
        spec = Spec(SGD(0.1), schedule=StepLR(3))
        if sys.argv[1] == "dynamic":
            from layered_lr import AdamW
            spec = Spec(AdamW(0.1))
        gc.disable()  # but for one moment that Python may choose at any time
        inner = flow._oneflow_internal
        complete = inner.CurJobBuildAndInferCtx_Complete
        inner.CurJobBuildAndInferCtx_Complete = lambda: (complete(), gc.collect())[0]
        made = 0
        for _ in range(2):
            model = start(mlp())
            graph = Train(model, lambda graph: attach(resolve(spec, model, 10, 10), graph, model))
            graph(*batch(0)).numpy()
            graph.cycle = [graph]
            made += 1
        inner.CurJobBuildAndInferCtx_Complete = complete
        answer(made=made)
        """,
        [[lowering] for lowering in lowerings],
    )
    assert dict(zip(lowerings, answers, strict=True)) == {lowering: {"made": 2} for lowering in lowerings}
