"""Finds faults in a torch recipe that somebody wrote by hand."""
