"""Fine-tune: the new head alone for one epoch, then everything, the backbone at a tenth of the head's rate."""

import os

import layered_lr as ll

spec = ll.Spec(
    ll.AdamW(lr=1e-3, weight_decay=0.01),
    groups=[
        ll.Group("features", name="backbone", lr_scale=0.1),
        ll.Group("classifier", name="head"),
    ],
    schedule=ll.CosineDecay(),  # down to 0 at the end of the run
    phases=ll.phases.head_first("1 epoch"),
)

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None  # MAX_STEPS=2 makes a tiny run of it
print(ll.plan(spec, epochs=4))
result = ll.run(spec, data="digits", epochs=4, max_steps=max_steps)
print(result)
