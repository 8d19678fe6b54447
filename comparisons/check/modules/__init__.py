"""Two modules: whether a re-implementation is the original, and where they part."""
