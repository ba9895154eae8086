"""Backends: each builds models, loads their weights, and opens sessions that train them with a plan."""

from layered_lr.backend.base import Backend, Dtype
from layered_lr.backend.session import Extras, Session

__all__ = ["Backend", "Dtype", "Extras", "Session"]
