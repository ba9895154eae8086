"""Train on digits, then use the model: predict, evaluate class by class, export, describe."""

import os
import tempfile
from pathlib import Path

import layered_lr as ll

spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("features", name="backbone", lr_scale=0.1), ll.Group("classifier", name="head")],
)
max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
digits = ll.load_dataset("digits")

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ll.run(spec, data=digits, epochs=2, batch_size=32, max_steps=max_steps, save=folder / "result.npz")

    result = ll.Result.load(folder / "result.npz")  # as another program would
    print(result.predict(digits.x_test[:5], top_k=3))  # pixels, normalised as in the run
    print(result.evaluate(digits))
    print(result.export(folder / "weights.safetensors"))
    # The whole model. check=True, the default, also compares it with the answers of both frameworks.
    print(result.export(folder / "model.pt2", normalise=True, check=False))
    print(result.card(folder / "CARD.md").splitlines()[1])
