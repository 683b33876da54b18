"""What the sample agent can do to the sample project."""

from pathlib import Path

RIGHT = """    total = 0
    for letter, following in zip(numeral, numeral[1:] + " "):
        value = VALUES[letter]
        total += -value if value < VALUES.get(following, 0) else value
    return total
"""
WRONG = "    return sum(VALUES.get(letter, 0) for letter in numeral)\n"


def subtractive_notation(module: Path) -> None:
    replace_sum(module, RIGHT)


def wrong_guess(module: Path) -> None:
    replace_sum(module, WRONG)


def replace_sum(module: Path, body: str) -> None:
    source = module.read_text(encoding="utf-8")
    start = source.index("    return sum(")
    module.write_text(source[:start] + body, encoding="utf-8")
