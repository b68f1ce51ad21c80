"""Corpora by name: where their text is, and how they are divided."""
