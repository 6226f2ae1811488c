"""Mistakes made on purpose, to see that tests notice them: ``python -m tests.mutations``."""
