"""What the revising system asks for and gives: its requests, its tasks."""
