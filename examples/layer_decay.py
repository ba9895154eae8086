"""Discriminative rates: each block at 0.8 of the rate of the block above it, written with groups."""

import os

import layered_lr as ll

DECAY, BLOCKS = 0.8, 19  # MobileNetV2 has the blocks features.0 to features.18

spec = ll.Spec(
    ll.AdamW(lr=2e-3, weight_decay=0.05),
    groups=[
        *(ll.Group(f"features.{block}", lr_scale=DECAY ** (BLOCKS - block)) for block in range(BLOCKS)),
        ll.Group("classifier", name="head"),
    ],
    schedule=ll.CosineDecay(),
    no_weight_decay="1d",
)

plan = ll.plan(spec, epochs=3)
print(plan)  # no group 'rest': nothing was forgotten
assert [group.name for group in plan.groups][-1] == "head"

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
print(ll.run(spec, data="digits", epochs=3, max_steps=max_steps))
