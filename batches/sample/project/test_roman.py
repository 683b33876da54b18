import unittest

from roman import to_number


class AdditiveNotation(unittest.TestCase):
    def test_letters_add_up(self) -> None:
        self.assertEqual(to_number("MDCLXVI"), 1666)


if __name__ == "__main__":
    unittest.main()
