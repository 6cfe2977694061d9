"""Word lists, written as running text so that they can be read and compared."""


def word_set(text: str) -> frozenset[str]:
    """The words of `text`, separated by white space."""
    return frozenset(text.split())
