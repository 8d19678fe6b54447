"""Ports written blind, the third set."""
