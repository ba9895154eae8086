"""Halve the rate when the test accuracy has not improved for one epoch."""

import os

import layered_lr as ll

spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=ll.ReduceLROnPlateau(metric="accuracy", factor=0.5, patience=1),
)

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
result = ll.run(spec, data="digits", epochs=8, max_steps=max_steps)
print(result.accuracies)
print(result.rates["classifier"])  # the rates that came of it
