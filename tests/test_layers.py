"""Who may import whom: imports between folders go one way, and pure-Python folders run without jax."""

import ast
import subprocess
import sys

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "pivotrl_jax"

# folder -> the folders it may import, bottom up; programs and __main__ may import anything but a program
ALLOWED: dict[str, str] = {
    "records": "",
    "terminal": "records",
    "plugins": "records",
    "endpoints": "records",
    "chat": "records",
    "models": "records",
    "environments": "records plugins chat",
    "checkpoints": "records models",
    "verifiers": "records plugins endpoints chat environments",
    "trajectories": "records plugins chat environments verifiers",
    "rollouts": "records endpoints chat models environments verifiers",
    "run": "records terminal plugins chat models environments checkpoints verifiers",
    "pivots": "records chat models checkpoints verifiers trajectories rollouts run",
    "evaluation": "records chat models environments checkpoints verifiers trajectories rollouts run",
    "training": "records plugins endpoints chat models environments checkpoints verifiers trajectories "
    "rollouts run pivots",
    "report": "records terminal chat checkpoints run pivots",
    "plan": "records models checkpoints rollouts run training",
    "exchange": "records terminal chat verifiers trajectories run pivots",
    "serve": "records terminal chat models checkpoints rollouts run",
    "views": "records run pivots report",
    # the whole method as functions, which the programs call
    "pipeline": "records chat checkpoints verifiers trajectories rollouts run pivots evaluation training "
    "report",
    "api": "records verifiers trajectories run pivots evaluation serve views pipeline",
}
PROGRAMS = {"train", "find_pivots", "evaluate", "candidates", "verify", "score"}
PROGRAMS |= {"merge_profiles", "rescore", "export", "push", "completion"}
# run without jax
PURE = {"records", "terminal", "plugins", "endpoints", "chat", "environments", "verifiers", "trajectories"}
ACCELERATED = {"jax", "jaxlib", "flax", "optax", "orbax"}
CONFIGURES = {"run", "api", *PROGRAMS}  # where ml_collections may be imported


def imports(source: str) -> set[str]:
    """Every dotted name a file imports, lazily or not; `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def complaints(folder: str, source: str) -> list[str]:
    """What a file of that folder (or module at the top) imports but must not."""
    out = []
    for target in sorted(imports(source)):
        top, *rest = target.split(".")
        if top == "pivotrl_jax" and rest and rest[0] != folder:
            there = rest[0]
            if there in PROGRAMS or (folder in ALLOWED and there not in ALLOWED[folder].split()):
                out.append(f"{folder} imports {target}")
        if top in ACCELERATED and folder in PURE:
            out.append(f"{folder} imports {target}")
        if top == "ml_collections" and folder not in CONFIGURES:
            out.append(f"{folder} imports {target}")
    return out


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).with_suffix("").parts[0], path


def test_every_import_goes_down():
    wrong = [complaint for folder, path in files() for complaint in complaints(folder, path.read_text())]
    assert not wrong, "\n".join(wrong)


def test_every_folder_and_module_has_its_place():
    assert {folder for folder, _ in files()} == {*ALLOWED, *PROGRAMS, "__init__", "__main__"}


def test_what_is_allowed_has_no_circle():
    lower: set[str] = set()
    for folder, allowed in ALLOWED.items():
        assert set(allowed.split()) <= lower, f"{folder} may import what stands above it"
        lower.add(folder)


def test_every_folder_says_what_it_is_for_and_where_to_start():
    for folder in (path for path in PACKAGE.rglob("*") if (path / "__init__.py").is_file()):
        says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
        assert says, f"{folder.relative_to(PACKAGE)}/__init__.py says nothing"


@pytest.mark.parametrize(
    "folder, line",
    [
        ("chat", "def f():\n    import jax.numpy as jnp"),
        ("verifiers", "from optax import adamw"),
        ("records", "from pivotrl_jax import chat"),
        ("models", "from pivotrl_jax.chat.template import Chat"),
        ("checkpoints", "import pivotrl_jax.verifiers.base"),
        ("evaluation", "from pivotrl_jax.pivots import selection"),
        ("evaluation", "from pivotrl_jax.training import loop"),
        ("training", "from pivotrl_jax.evaluation import evaluation"),
        ("training", "from pivotrl_jax import train"),
        ("train", "from pivotrl_jax.evaluate import main"),
        ("report", "from pivotrl_jax.training import monitor"),
        ("models", "import ml_collections"),
        ("pipeline", "from pivotrl_jax import api"),
        ("views", "from pivotrl_jax import pipeline"),
        ("api", "from pivotrl_jax.train import main"),
    ],
)
def test_the_check_sees_what_is_forbidden(folder, line):
    assert complaints(folder, line)


@pytest.mark.parametrize(
    "folder, line",
    [
        ("train", "from pivotrl_jax.report import report\nimport ml_collections"),
        ("rollouts", "from pivotrl_jax import records, verifiers"),
        ("plan", "from pivotrl_jax.training.recipe import grpo_learner"),
        ("run", "import ml_collections"),
    ],
)
def test_the_check_lets_pass_what_is_allowed(folder, line):
    assert not complaints(folder, line)


def test_no_file_function_or_list_of_arguments_outgrows_a_reader():
    """400 lines a file, 60 a function, 8 arguments with `self`."""
    wrong = []
    for _, path in files():
        source = path.read_text("utf-8")
        if source.count("\n") > 400:
            wrong.append(f"{path.name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                a = node.args
                arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs]
                if lines >= 60 or len(arguments) > 8:
                    wrong.append(f"{path.name}: {node.name} has {lines} lines, {len(arguments)} arguments")
    assert not wrong, "\n".join(wrong)


def test_pure_folders_run_without_loading_jax():
    modules = [
        ".".join(("pivotrl_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for folder, path in files()
        if folder in PURE and path.name != "__main__.py"
    ]
    modules += ["pivotrl_jax.api", "pivotrl_jax.views.opened"]  # a run is opened without jax
    code = f"import importlib, sys\nfor m in {modules!r}: importlib.import_module(m)\n"
    code += f"print(sorted({ACCELERATED!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
