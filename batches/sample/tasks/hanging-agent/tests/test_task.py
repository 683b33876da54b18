import unittest

from roman import to_number


class SubtractiveNotation(unittest.TestCase):
    def test_a_smaller_letter_before_a_larger_one_is_subtracted(self) -> None:
        for numeral, number in {"IV": 4, "XC": 90, "MCMXCIV": 1994}.items():
            self.assertEqual(to_number(numeral), number)
