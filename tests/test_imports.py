"""Who may import whom (DESIGN.md), by the source text and, in a process of its own, by what is really loaded."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TORCH, ONEFLOW = {"torch", "torchvision", "functorch"}, {"oneflow", "flowvision"}
BACKENDS = {"layered_lr_torch", "layered_lr_oneflow"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "layered_lr").rglob("*.py")
    if path.name != "__main__.py"
)
# Each takes a good part of a second, or is a dependency that only training needs.
HEAVY = {"numpy", "pydantic", "pydantic_core", "sklearn", "scipy", "tqdm", "rich", "tabulate", "pooch", "safetensors"}


def imports(path: Path) -> Iterator[str]:
    """The first component of everything that a file imports, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant):
                yield str(first.value).split(".")[0]


def offenders(folder: str, forbidden: set[str]) -> dict[str, set[str]]:
    files = list((ROOT / folder).rglob("*.py"))
    assert files, f"nothing to check in {folder}"
    found = {str(path.relative_to(ROOT)): set(imports(path)) & forbidden for path in files}
    return {path: names for path, names in found.items() if names}


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after ``code``, beyond those that it starts with."""
    lines = "import json, sys\nbefore = set(sys.modules)\n" + code
    lines += "\nprint('\\n' + json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", lines],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_core_imports_no_framework_and_no_backend() -> None:
    assert offenders("layered_lr", TORCH | ONEFLOW | BACKENDS) == {}


def test_no_backend_imports_the_other_or_its_framework() -> None:
    assert offenders("backends/layered_lr_torch", ONEFLOW | {"layered_lr_oneflow"}) == {}
    assert offenders("backends/layered_lr_oneflow", TORCH | {"layered_lr_torch"}) == {}


def test_the_backends_are_named_in_one_file_of_the_core() -> None:
    def naming(path: Path) -> bool:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        return any(text.split(".")[0] in BACKENDS for text in texts)

    assert [path.name for path in (ROOT / "layered_lr").rglob("*.py") if naming(path)] == ["registry.py"]


def test_no_test_file_imports_another() -> None:
    """What several tests need stands in tests/support."""
    importing = {
        str(path.relative_to(ROOT)): [module for module in modules(path) if ".test_" in module]
        for path in (ROOT / "tests").rglob("*.py")
    }
    assert len(importing) > 50 and {path: found for path, found in importing.items() if found} == {}


def modules(path: Path) -> Iterator[str]:
    """The full names of what a file imports from, at whatever depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_folder_of_the_source_root_hides_a_framework() -> None:
    assert {path.name for path in (ROOT / "backends").iterdir() if path.is_dir()} & (TORCH | ONEFLOW) == set()


def test_the_check_by_source_finds_what_it_looks_for(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "def f():\n    import torch.nn as nn\n    from oneflow import nn\n    __import__('flowvision.models')"
    )
    assert set(imports(file)) == {"torch", "oneflow", "flowvision"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    names = loaded("import layered_lr")
    assert "layered_lr" in names
    assert names - {"layered_lr", "lazy_loader"} <= sys.stdlib_module_names, "only the standard library and SPEC 1"


def test_no_module_of_the_core_loads_a_framework() -> None:
    assert len(MODULES) > 20
    names = loaded("import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in MODULES))
    assert names & (TORCH | ONEFLOW | BACKENDS) == set()


def test_every_public_name_is_there_and_loads_no_framework() -> None:
    names = loaded("from layered_lr import *\nimport layered_lr\nassert set(layered_lr.__all__) <= set(globals())")
    assert names & (TORCH | ONEFLOW) == set()


@pytest.mark.parametrize("lowered", ["plan.lowering('torch-eager')", "plan.lowering('oneflow-graph')", "print(plan)"])
def test_resolving_and_printing_a_plan_loads_no_framework(lowered: str) -> None:
    code = "import layered_lr as ll\nplan = ll.resolve(ll.Spec(ll.SGD(0.1)), [('fc.weight', (2, 3))], total_steps=4)\n"
    names = loaded(code + lowered)
    assert names & (TORCH | ONEFLOW) == set()


def test_a_plan_of_the_whole_run_loads_no_framework() -> None:
    names = loaded("from layered_lr.api import plan\nprint(plan(model='mobilenet_v2', data='digits', epochs=10))")
    assert names & (TORCH | ONEFLOW) == set()


@pytest.mark.parametrize("command", [[], ["run"], ["plan"], ["doctor"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    code = f"sys.argv = ['layered-lr', *{command!r}, '--help']\nfrom layered_lr.cli import main\n"
    names = loaded(code + "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code")
    assert names & (HEAVY | TORCH | ONEFLOW | BACKENDS) == set()


def test_the_check_by_loading_finds_what_it_looks_for() -> None:
    assert "numpy" in loaded("import numpy")
