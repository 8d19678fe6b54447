"""Ports written blind, the sixth set."""
