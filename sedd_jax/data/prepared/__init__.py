"""Prepared folders: token files of each split, a manifest, and their writer."""
