"""Training runs of one's own: recorded, and held against each other."""
