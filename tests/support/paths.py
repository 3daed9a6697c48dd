"""Where things are. `SHARED` holds recorded cases; tests that read it are skipped where it is absent."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden"
SUPPORT = TESTS / "support"
SHARED = ROOT.parent / "shared" / "data"
EMBEDDED = ROOT / "pivotrl_jax" / "assets" / "tiny"
