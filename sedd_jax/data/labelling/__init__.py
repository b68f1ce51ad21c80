"""What is known of texts: labels, fields of meanings, tags and phrases."""
