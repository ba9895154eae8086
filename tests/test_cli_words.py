"""What the command says: help that holds, hints in its own words, and a last line that works when it is pasted."""

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import layered_lr as ll
from layered_lr import cli
from layered_lr.cli import _would_run, main
from layered_lr.training.option import options_of
from layered_lr.training.options import RunOptions


def help_of(*words: str) -> str:
    return " ".join(CliRunner().invoke(cli.cli, [*words, "--help"]).output.split())


def test_help_names_the_ready_recipes_and_flags() -> None:
    for command in ("run", "plan", "compare"):
        text = help_of(command)
        assert all(name in text.replace("- ", "-") for name in ll.ready_recipes())
        assert not any(f" {name} " in text for name in options_of(RunOptions) if "_" in name)


def test_the_defaults_in_help_are_those_of_the_command() -> None:
    assert "How many images a batch has. [32]" in help_of("compare")
    assert "as long as --steps" in help_of("compare") and "[6, where" not in help_of("compare")
    assert "How many images a batch has. [64]" in help_of("run") and "[6, where --max-steps" in help_of("run")


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--bs", "'--batch-size'"),
        ("--num-epochs", "'--epochs'"),
        ("--gpu", "'--device'"),
        ("--lr", "recipe"),
        ("--output_dir", "'--checkpoint-dir'"),
        ("--criterion", "'--loss'"),
        ("--frozen", "recipe|spec"),
    ],
)
def test_an_option_of_another_tool_gets_a_hint(
    option: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["layered-lr", "run", option, "3"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert any(word in said for word in hint.split("|"))


def result(spec: ll.Spec) -> Any:
    plan = ll.resolve(spec, [("features.w", (2, 2)), ("classifier.w", (2, 2))], 4, 2)
    return SimpleNamespace(plan=plan, backend="torch-eager")


def test_the_last_line_is_printed_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layered_lr.cli.is_installed", lambda name: True)
    plain = result(ll.Spec(ll.SGD(0.1)))
    assert _would_run("oneflow-graph", plain, {}) and _would_run("oneflow-graph", plain, {"model": "mobilenet_v2"})
    for arguments in ({"model": "mine:Net"}, {"model": object()}, {"device": "mps"}, {"precision": "bfloat16"}):
        assert not _would_run("oneflow-graph", plain, arguments)
    too_small = ll.Spec(ll.SGD(1e-45), [ll.Group("features", lr_scale=1e30)])  # float32 cannot hold it
    assert not _would_run("oneflow-graph", result(too_small), {})
    monkeypatch.setattr("layered_lr.cli.is_installed", lambda name: False)
    assert not _would_run("oneflow-graph", plain, {})
