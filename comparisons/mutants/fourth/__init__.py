"""Mistakes written blind, from the README alone, and before any was tried."""
