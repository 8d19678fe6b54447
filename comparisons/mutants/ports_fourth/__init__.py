"""Ports written blind, the fourth set."""
