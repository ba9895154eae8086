"""Does fine-tuning with a rate for each layer pay? The recipe ``fine-tune`` against one rate for everything.

    python -m benchmarks.fine_tuning --data FILE --weights FILE [--seeds 0 1 2] [--compare]

``--data`` is an .npz of real images (4,000 of CIFAR-10 and 600 to test were used), ``--weights`` a file of
torchvision's ``mobilenet_v2`` on ImageNet. Each candidate trains it for 5 epochs on torch: images of 80 x 80, batch 64.
A run's row is appended to ``results/fine_tuning.jsonl`` as soon as it ends, and a run that has a row is not made again,
so a measurement that was stopped goes on. ``--compare`` asks the certificate whether oneflow-graph makes the recipe's
first updates alike. The table goes into ``docs/measured.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

from tabulate import tabulate

import layered_lr as ll
from benchmarks.frame.command import RESULTS, say
from benchmarks.frame.images import part
from benchmarks.frame.pages import replace_part
from benchmarks.frame.worker import ROOT

ROWS = RESULTS / "fine_tuning.jsonl"
PAGE = ROOT / "docs" / "measured.md"
BEGIN, END = "<!-- fine-tuning: made by benchmarks.fine_tuning -->", "<!-- end of fine-tuning -->"
RECIPE = "fine-tune"
HEAD = ("what trains", "rate", "test accuracy, median (min to max)", "seeds", "after each epoch, median")
IMAGE_PIXELS, BATCH_SIZE, EPOCHS = 80, 64, 5
COMPARED_STEPS, COMPARED_IMAGES, COMPARED_BATCH = 8, 128, 32  # two epochs: four updates of the head, four of everything


def candidates() -> dict[str, ll.Spec]:
    """The recipe, and the same with one rate for everything from the first update on: a quarter of its, and its own."""
    recipe = ll.load_recipe(RECIPE).spec
    found = {"recipe": recipe}
    for share in (0.25, 1.0):
        rate = recipe.optimizer.lr * share
        schedule: Any = recipe.schedule
        found[f"one rate, {rate:g}"] = replace(
            recipe,
            optimizer=replace(recipe.optimizer, lr=rate),
            groups=(),
            schedule=replace(schedule, max_lr=rate),
            layer_decay=None,
            phases=(),
        )
    return found


def measure(name: str, seed: int, data: str, weights: str, pixels: int = IMAGE_PIXELS) -> dict[str, Any]:
    """Train a candidate; its row.

    Args:
        name: Of the candidate.
        seed: Of the head's first weights, the order of the images, augmentation and dropout.
        data: The path of an .npz, or a data set's name.
        weights: The path of a file.
        pixels: Of a side of the images.
    """
    spec = candidates()[name]
    result = ll.run(
        spec,
        data=data,
        pretrained=weights,
        image_size=pixels,
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        augment=True,
        seed=seed,
        progress=False,
    )
    return {
        "candidate": name,
        "seed": seed,
        "lr": spec.optimizer.lr,
        "pixels": pixels,
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "updates": len(result.losses),
        "accuracies": [round(float(accuracy), 4) for accuracy in result.accuracies],
        "versions": result.versions,
    }


def compare(data: str, weights: str, pixels: int = IMAGE_PIXELS) -> dict[str, Any]:
    """Ask the certificate about the recipe's first updates on oneflow-graph, across its change of phase; a row."""
    found = ll.compare(
        candidates()["recipe"],
        ["torch-eager", "oneflow-graph"],
        data=part(data, COMPARED_IMAGES, COMPARED_BATCH),
        pretrained=weights,
        image_size=pixels,
        batch_size=COMPARED_BATCH,
        steps=COMPARED_STEPS,
        progress=False,
    )
    return {
        "compared": "oneflow-graph",
        "steps": COMPARED_STEPS,
        "pixels": pixels,
        "batch_size": COMPARED_BATCH,
        "same": found.same,
        "verdict": str(found),
    }


def read_rows() -> list[dict[str, Any]]:
    """All rows that are known, in the order in which they were measured."""
    return [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()] if ROWS.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Make the table of all candidates that have rows, the recipe first, and a sentence on the comparison."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if "candidate" in row:
            runs.setdefault(row["candidate"], []).append(row)
    cells = [_cells(name, runs[name]) for name in candidates() if name in runs]
    said = [_sentence(row) for row in rows if "compared" in row]
    return "\n\n".join([tabulate(cells, HEAD, tablefmt="github", disable_numparse=True), *said[-1:]])


def _cells(name: str, rows: list[dict[str, Any]]) -> list[str]:
    last = [row["accuracies"][-1] for row in rows]
    epochs = [statistics.median(at) for at in zip(*(row["accuracies"] for row in rows), strict=True)]
    return [
        "head first, then each layer at its own rate" if name == "recipe" else "everything at one rate",
        f"{rows[0]['lr']:g}" + " at the head" * (name == "recipe"),
        f"{statistics.median(last):.3f} ({min(last):.3f} to {max(last):.3f})",
        str(len(last)),
        ", ".join(f"{accuracy:.3f}" for accuracy in epochs),
    ]


def _sentence(row: dict[str, Any]) -> str:
    verdict = "the same within rounding" if row["same"] else "different"
    return (
        f"`ll.compare` of the recipe on torch-eager and {row['compared']}, {row['steps']} updates at "
        f"{row['pixels']} x {row['pixels']}, half of them of the head alone: {verdict}."
    )


def write_page(rows: list[dict[str, Any]]) -> None:
    """Write the table into the page, between its two marks."""
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(replace_part(text, BEGIN, END, f"\n{table(rows)}\n"), encoding="utf-8")


def add_row(row: dict[str, Any]) -> None:
    """Append a row to those that are known."""
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main(words: list[str] | None = None) -> None:
    """Measure what has no row yet, seed by seed, so that all candidates have as many at any time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fine_tuning", description=__doc__.split("\n")[0])
    parser.add_argument("--data", metavar="FILE", required=True, help="an .npz of real images")
    parser.add_argument("--weights", metavar="FILE", required=True, help="mobilenet_v2's weights on ImageNet")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of each candidate  [0 1 2]")
    parser.add_argument("--compare", action="store_true", help="compare oneflow-graph too")
    given = parser.parse_args(words)
    for seed in given.seeds:
        for name in candidates():
            if (name, seed) in {(row.get("candidate"), row.get("seed")) for row in read_rows()}:
                continue
            row = measure(name, seed, given.data, given.weights)
            add_row(row)
            say(f"{name}, seed {seed}: {row['accuracies']}")
            write_page(read_rows())
    if given.compare:
        add_row(compare(given.data, given.weights))
        write_page(read_rows())


if __name__ == "__main__":
    main()
