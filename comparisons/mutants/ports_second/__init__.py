"""A second set of originals and ports, written blind."""
