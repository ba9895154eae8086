"""One spec of layer groups, ``lr`` and ``lr_scale``, compiled to torch and OneFlow.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that importing this package
takes no time and does not even import NumPy.
"""

import sys

if (
    sys.argv[:1] == ["-m"]
    and any(word.startswith(("layered_lr", "-mlayered_lr")) for word in sys.orig_argv)
    and not getattr(sys.flags, "safe_path", False)
):  # `python -m layered_lr` looks into the current folder first: a stranger's folder would run its own tqdm.py
    del sys.path[0]

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        from layered_lr.guesses import explain_type

        hint = "" if name.startswith("_") else explain_type(name, __all__)
        raise AttributeError(f"module 'layered_lr' has no attribute {name!r}{'.' + hint if hint else ''}")
    return _load(name)
