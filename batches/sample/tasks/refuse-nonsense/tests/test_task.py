import unittest

from roman import to_number


class Nonsense(unittest.TestCase):
    def test_an_unknown_letter_is_named(self) -> None:
        with self.assertRaisesRegex(ValueError, "A"):
            to_number("ABC")
