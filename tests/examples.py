"""How many examples hypothesis tries, and which."""

import os


def scaled(number: int) -> int:
    """So many examples, times ``ZC_EXAMPLES`` if that is in the environment."""
    return max(1, int(number * float(os.environ.get("ZC_EXAMPLES", "1"))))
