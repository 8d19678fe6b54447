"""English text that ships with Python: what its help says of topics like "assert"."""

from __future__ import annotations

import hashlib
import string
from functools import cache

LENGTH = 100_000
# The printable characters of ASCII, and the end of a line.
ALPHABET = "\n " + string.ascii_letters + string.digits + string.punctuation


@cache
def text() -> str:
    """The first characters that are in the alphabet."""
    from pydoc_data.topics import topics

    known = (c for topic in topics.values() for c in topic if c in ALPHABET)
    return "".join(c for c, _ in zip(known, range(LENGTH), strict=False))


def digest() -> str:
    """Of the text, which another release of Python may have written anew."""
    return hashlib.sha256(text().encode()).hexdigest()[:12]
