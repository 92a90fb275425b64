"""Text for a terminal."""


def printable(text: str) -> str:
    """`text` without what a terminal would act on: names come from anybody."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
