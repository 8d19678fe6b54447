"""Arrays that a test keeps beside it."""
