"""Every script of experiments/ can be imported beside the modules of its folder, as running it does."""

import subprocess
import sys

from support.paths import ROOT

LOAD = """
import importlib.util, pathlib, sys
from absl import flags
path, own = list(sys.path), set(flags.FLAGS)
for file in sorted(pathlib.Path("experiments").rglob("*.py")):
    for name, module in list(sys.modules.items()):  # folders have modules of the same names
        if "/experiments/" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]
    for name in set(flags.FLAGS) - own:  # and flags
        delattr(flags.FLAGS, name)
    sys.path[:] = [str(file.parent.resolve()), *path]
    spec = importlib.util.spec_from_file_location(f"script_{file.stem}", file.resolve())
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        print(f"{file}: {type(e).__name__}: {e}")
"""


def test_every_script_imports():
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "" and done.returncode == 0, done.stdout + done.stderr
