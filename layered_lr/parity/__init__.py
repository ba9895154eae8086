"""Whether backends train alike: traces of real runs, probes with known gradients, and what rounding alone explains.

The method is told in ``layered_lr.parity.verdict``; the public door is ``layered_lr.compare``.
"""
