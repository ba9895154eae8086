"""Random recipes through the command: a plan, or one clear error."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import strategies as st

from layered_lr.cli import main
from tests.support.fuzz import Target, hold
from tests.support.fuzz_specs import recipes


def test_recipes_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    file = tmp_path / "recipe.toml"

    def plan(recipe: dict[str, Any], more: list[str]) -> None:
        file.write_text(tomli_w.dumps(recipe), encoding="utf-8", errors="replace")
        monkeypatch.setattr("sys.argv", ["layered-lr", "plan", "--recipe", str(file), "--max-steps", "3", *more])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert ended.value.code in (0, 2) and "Traceback" not in said.err
        assert (said.out if ended.value.code == 0 else said.err).strip()

    more = st.sampled_from([[], ["--json"], ["--backend", "oneflow-graph"], ["--epochs", "2"], ["--batch-size", "0"]])
    hold(Target("layered-lr plan", plan, {"recipe": recipes, "more": more}), 25)
