"""Log a run for TensorBoard, list the runs of a folder, and write an HTML report."""

import os
import tempfile
from pathlib import Path

import layered_lr as ll

spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=ll.CosineDecay(),
)
max_steps = int(os.environ.get("MAX_STEPS", "0")) or None

with tempfile.TemporaryDirectory() as folder:
    for seed in (0, 1):
        ll.run(
            spec,
            epochs=2,
            max_steps=max_steps,
            seed=seed,
            checkpoints=Path(folder, "runs", f"seed-{seed}"),
            log=f"csv:{folder}/seed-{seed}.csv",
            callbacks=[ll.TensorBoard(Path(folder, "logs", f"seed-{seed}"), histograms=True)],
        )
    print(ll.list_runs(Path(folder, "runs")))
    print(ll.report(Path(folder, "runs"), Path(folder, "report.html")))
