"""Begin in PyTorch, go on in OneFlow: the state is kept by parameter name, without a framework."""

import os

import layered_lr as ll

steps = int(os.environ.get("MAX_STEPS", "40"))
spec = ll.Spec(
    ll.SGD(lr=0.05, momentum=0.9),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=ll.CosineAnnealingLR(T_max=2 * steps),
)

ll.run(spec, backend="torch-eager", max_steps=steps, batch_size=32, checkpoints=ll.Checkpoints("runs/both"))
result = ll.resume("runs/both", backend="oneflow-eager", max_steps=2 * steps)

print(result)  # of the whole run: the torch part too
assert len(result.losses) == 2 * steps
