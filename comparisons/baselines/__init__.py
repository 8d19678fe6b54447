"""All that is measured, kept to the bit, and what moved since."""
