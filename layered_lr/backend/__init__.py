"""What a backend is: it builds and loads models, and opens sessions that train them under a plan."""

from layered_lr.backend.base import Backend, Dtype, Extras, Session

__all__ = ["Backend", "Dtype", "Extras", "Session"]
