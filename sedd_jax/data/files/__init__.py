"""Files: plain, packed and compressed text, and what is written to last."""
