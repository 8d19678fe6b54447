"""A difference, judged against a floor that is measured."""
