"""What a comparison's processes are given: a function must be one that they find by its name in the user's script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from layered_lr.errors import SpecError
from layered_lr.parity.packing import packed, unpacked

def at_the_top():
    return 1

def makes():
    def inside():
        return 2
    return inside

class Held:
    def method(self):
        return 3

if __name__ == "__main__":
    def guarded():
        return 5
    class GuardedClass:
        pass
    try:
        print(unpacked(packed({given}, "compare"))())
    except SpecError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("at_the_top", "1"),
        ("Held().method", "3"),
        ("lambda: 1", "<lambda> cannot be found in the script by its name"),
        ("makes()", "makes.<locals>.inside cannot be found in the script by its name"),
        ("guarded", "guarded stands under if __name__ == '__main__', where other processes do not look"),
        ("GuardedClass().__str__", "GuardedClass stands under if __name__ == '__main__'"),
    ],
)
def test_a_function_is_found_again_or_refused(given: str, expected: str, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.replace("{given}", given))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert expected in done.stdout
    if expected not in ("1", "3"):
        assert "Functions must stand at the top level of a module" in done.stdout
