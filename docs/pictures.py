"""The picture of a plan on the first page and in README: ``python -m docs.pictures`` draws it anew."""

from __future__ import annotations

from pathlib import Path

import layered_lr as ll

PICTURE = Path(__file__).parent / "images" / "plan.svg"


def spec() -> ll.Spec:
    """A fine-tuner's spec: the head first, the backbone at a tenth, a warm-up and a cosine."""
    return ll.Spec(
        ll.AdamW(lr=1e-3),
        groups=[ll.Group("features", name="backbone", lr_scale=0.1), ll.Group("classifier", name="head")],
        schedule=ll.CosineDecay(warmup_steps=20, min_lr=1e-5),
        phases=ll.phases.head_first(1),
    )


def draw() -> None:
    """Write the picture."""
    from layered_lr.plans.picture import picture

    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_bytes(picture(ll.plan(spec(), epochs=6), ".svg", "linear"))


if __name__ == "__main__":
    draw()
