"""Bounds on -log p, and the times at which they are taken."""
