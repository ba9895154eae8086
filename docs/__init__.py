"""The documentation, and the code that makes parts of it."""
