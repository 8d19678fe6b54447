"""Right rules, and the mistakes that are planted in them."""
