"""Roman numerals. The sample's tasks are about what is wrong here."""

VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def to_number(numeral: str) -> int:
    """The number that ``numeral`` stands for."""
    return sum(VALUES[letter] for letter in numeral)
