"""Before a run: the search for a rate, and whether a model learns one batch by heart."""
