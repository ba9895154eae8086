"""Adam finds the way quickly, SGD ends it: a switch of the optimizer in the middle of the run."""

import os

import layered_lr as ll

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None

spec = ll.Spec(
    ll.Adam(lr=1e-3),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    phases=[
        ll.Phase("1 step" if max_steps else "2 epochs"),
        ll.Phase(
            optimizer=ll.SGD(lr=0.05, momentum=0.9),
            schedule=ll.CosineDecay(),
            counts_from="phase",  # the cosine begins where SGD begins
            momentum_warmup=50,  # or carry="momentum", to take over Adam's running gradient
        ),
    ],
)

result = ll.run(spec, data="digits", epochs=6, max_steps=max_steps)
print(result)
