"""What is known of texts: fields of meanings, tags and phrases."""
