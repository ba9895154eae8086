"""Each group with a schedule of its own; the plan shows them before anything trains."""

import os

import layered_lr as ll

spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[
        ll.Group("features", name="backbone", lr_scale=0.1, schedule=ll.Warmup(20, then=ll.CosineDecay())),
        ll.Group("*.bias", name="biases", schedule=ll.ExponentialLR(0.99)),
        ll.Group("classifier", name="head", schedule=ll.StepLR(step_size=2, gamma=0.5, unit="epoch")),
    ],
)

plan = ll.plan(spec, epochs=6)
print(plan)
plan.to_csv("rates.csv")  # every rate of every update

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
result = ll.run(spec, data="digits", epochs=6, max_steps=max_steps)
print(result.largest_rate_differences())  # between the rates that were planned and those that the optimizer had
