"""Trainings written blind, each with harmless and faulty changes."""
