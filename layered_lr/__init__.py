"""One spec of layer groups, ``lr`` and ``lr_scale``, compiled to torch and OneFlow.

The public names are listed in ``__init__.pyi``. Each is imported when it is first used, so that importing this package
takes no time and does not even import NumPy.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        from layered_lr.guesses import explain_type

        hint = "" if name.startswith("_") else explain_type(name, __all__)
        raise AttributeError(f"module 'layered_lr' has no attribute {name!r}{'.' + hint if hint else ''}")
    return _load(name)
