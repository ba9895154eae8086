"""Processes that train together, what goes between them, and what that costs: for ``benchmarks.scaling``."""
