"""One script a question, through the public API alone: ``python -m benchmarks.NAME``, or ``layered-lr bench NAME``.

``frame`` holds what they share, ``opponents`` the loops written by hand, ``peers`` what a user would pick instead,
``results`` what was measured, and RESULTS.md shows it. NOTES.md says what was tried and did not help.
"""
