"""For CI: fail where a recipe no longer trains alike in PyTorch and in OneFlow, and keep the report."""

import os
import sys

import layered_lr as ll

steps = int(os.environ.get("MAX_STEPS", "50"))
recipe = ll.load_recipe("backbone-and-head")  # or the path of your own


def main() -> int:
    """Compare, and say by an exit code how it went."""
    found = ll.compare(
        recipe.spec,
        backends=["torch-eager", "oneflow-eager"],
        steps=steps,
        samples=2 if steps < 50 else 8,
        batch_size=8 if steps < 50 else 32,
    )
    found.to_html("parity.html")
    print(found)
    return 0 if found.same else 1


if __name__ == "__main__" and (code := main()):  # the guard, because each backend runs in a process of its own
    sys.exit(code)
