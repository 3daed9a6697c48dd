"""How many random cases a test tries."""

import os


def cases(usual: int) -> int:
    """`usual`, or what PIVOTRL_FUZZ says: `PIVOTRL_FUZZ=100000 pytest tests/verifiers/test_fuzz.py`."""
    return int(os.environ.get("PIVOTRL_FUZZ", usual))
