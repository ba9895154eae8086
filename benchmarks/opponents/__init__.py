"""Who runs against whom: ``ll.run``, and the best loops that we can write by hand."""
