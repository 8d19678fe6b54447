"""Ports written blind, the fifth set."""
