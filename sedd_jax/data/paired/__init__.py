"""Sources and their targets: files of pairs, their layouts, batches."""
