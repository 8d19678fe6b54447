"""Everything that is done with the pair."""
