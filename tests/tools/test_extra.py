#!/usr/bin/env python3
"""What needs the extra data: the bundled model in bf16, which is too large for the tree."""
import os
import unittest

from command import EXTRA, check_perplexity, main


class Extra(unittest.TestCase):
    def test_perplexity_of_the_bf16_model(self):
        folder = os.path.join(EXTRA, "golden/fairy-bf16")
        check_perplexity(self, folder, folder)


if __name__ == "__main__":
    main()
