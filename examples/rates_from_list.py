"""Rates by a list: one factor for each epoch, written by hand or read from a CSV file."""

import os
from pathlib import Path

import layered_lr as ll

Path("factors.csv").write_text("epoch,factor\n0,0.5\n1,1.0\n2,1.0\n3,0.3\n4,0.1\n5,0.03\n")

by_hand = ll.Table([0.5, 1.0, 1.0, 0.3, 0.1, 0.03], factor=True, unit="epoch")
from_file = ll.Table.from_csv("factors.csv", "factor", factor=True, unit="epoch")
assert by_hand == from_file

spec = ll.Spec(
    ll.SGD(lr=0.1, momentum=0.9),
    groups=[ll.Group("features", lr_scale=0.1), ll.Group("classifier")],
    schedule=from_file,
)

max_steps = int(os.environ.get("MAX_STEPS", "0")) or None
result = ll.run(spec, data="digits", epochs=6, max_steps=max_steps)
print(result)
