"""Ports of modules that were written blind: faults, and other right ways to write them."""
