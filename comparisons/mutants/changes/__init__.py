"""Trainings, each with harmless and faulty changes of its text, written blind."""
