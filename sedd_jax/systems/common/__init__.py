"""What systems have in common: parts of configs, requests, guides, weights."""
