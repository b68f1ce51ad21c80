"""Texts that models are compared on, as their papers read and pack them."""
