"""All that there is about one op."""
