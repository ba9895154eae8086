"""What is made from the declarations of the options is current, and says all of them."""

import inspect

import layered_lr as ll
from docs.generated import API, options_table, renew
from layered_lr.training.option import options_of
from layered_lr.training.options import RunOptions


def test_the_signatures_in_api_are_those_of_the_declarations() -> None:
    text = API.read_text(encoding="utf-8")
    assert renew(text) == text, "renew them: python -m docs.generated"


def test_renewing_writes_what_the_declarations_say() -> None:
    text = API.read_text(encoding="utf-8")
    assert renew(text.replace("    batch_size: int = 64,\n", "").replace("How many images a batch has.", "?")) == text


def test_each_function_documents_each_of_its_arguments() -> None:
    for function in (ll.run, ll.plan, ll.compare, ll.resume):
        documented = inspect.getdoc(function) or ""
        for name in inspect.signature(function).parameters:
            assert f"\n    {name}: " in documented, f"{function.__name__} does not say what {name} is"


def test_compare_has_defaults_of_its_own() -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(ll.compare).parameters.items()}
    assert defaults["batch_size"] == 32 and defaults["dropout"] == 0.0 and "precision" in defaults


def test_the_table_has_every_option_and_every_part() -> None:
    table = options_table()
    for name, declared in options_of(RunOptions).items():
        assert f"| `{name}` |" in table
        for part in options_of(declared.parts) if declared.parts else ():
            assert f"| `{name}.{part}` |" in table
