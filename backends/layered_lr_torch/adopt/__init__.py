"""Reads a spec out of an optimizer and a scheduler of torch."""
