"""Who may import whom (design, section 3): words know no jax, nothing imports a program."""

import ast
import subprocess
import sys

import pytest
from support.paths import ROOT

PACKAGE = ROOT / "pivotrl_jax"

# by the first name under pivotrl_jax; a module in no room is a bridge: it may use any room but no program
ROOMS = {
    "records": {"records"},
    "words": {
        "adaptive",
        "monitor",
        "trajectories",
        "chat",
        "verifiers",
        "environments",
        "pivots",
        "nemo_gym_rows",
        "nemo_gym_contract",
    },
    "arrays": {
        *(
            "forest",
            "attention",
            "attention_kernel",
            "experts",
            "fingerprint",
            "model_config",
            "model",
            "log_probs",
            "lora",
            "routing",
            "sharding",
        ),
        *("sampler", "grpo", "optimizer", "update", "theory"),
    },
    "edges": {
        *("hf", "hf_config", "hf_files", "hf_layout", "peft_export", "checkpoint", "metrics"),
        *("judge", "judge_templates"),
    },
    "programs": {
        "candidates",
        "exchange",
        "train",
        "find_pivots",
        "evaluate",
        "verify",
        "score",
        "plan",
        "report",
    },
}
MAY_IMPORT = {
    "records": {"records"},
    "words": {"records", "words"},
    "arrays": {"records", "arrays"},  # records for InputError alone
    "edges": {"records", "arrays", "edges"},
    "bridge": {"records", "words", "arrays", "edges", "bridge"},
    "programs": {"records", "words", "arrays", "edges", "bridge", "programs"},
}
ACCELERATED = {"jax", "jaxlib", "flax", "optax", "orbax"}


def room(name: str) -> str:
    return next((r for r, names in ROOMS.items() if name in names), "bridge")


def imports(source: str) -> set[str]:
    """Every dotted name a file imports, lazily or not; `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def attributes(source: str, name: str) -> set[str]:
    """The attributes a file reads from the module of that name."""
    nodes = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute))
    return {n.attr for n in nodes if isinstance(n.value, ast.Name) and n.value.id == name}


def complaints(name: str, source: str) -> list[str]:
    """What the module of that first name imports but must not."""
    here, out = room(name), []
    for target in sorted(imports(source)):
        top, *rest = target.split(".")
        if top == "pivotrl_jax" and rest:
            there = room(rest[0]) if rest[0] != "__init__" else here
            allowed = there in MAY_IMPORT[here]
            if there == "programs" and rest[0] != name:  # write_report alone, by either form of import
                names = rest[1:] or sorted(attributes(source, rest[0]))
                allowed = here == "programs" and rest[0] == "report" and names == ["write_report"]
            if here == "arrays" and there == "records":
                allowed = rest == ["records", "InputError"]
            if not allowed:
                out.append(f"{name} ({here}) imports {target} ({there})")
        if top in ACCELERATED and here in ("records", "words"):
            out.append(f"{name} ({here}) imports {target}")
        if top == "ml_collections" and here != "programs" and name != "cli":  # the programs' own entry
            out.append(f"{name} ({here}) imports {target}")
    return out


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield parts[0], path


def test_every_import_goes_down():
    found = [c for name, path in modules() for c in complaints(name, path.read_text())]
    assert not found, "\n".join(found)


def test_the_rooms_are_there():
    names = {name for name, _ in modules()}
    assert ROOMS["records"] | ROOMS["words"] | (ROOMS["arrays"] - {"sampler"}) <= names


@pytest.mark.parametrize(
    "name, line",
    [
        ("chat", "def f():\n    import jax.numpy as jnp"),
        ("verifiers", "from optax import adamw"),
        ("records", "from pivotrl_jax import chat"),
        ("pivots", "from pivotrl_jax.metrics import mean"),
        ("forest", "from pivotrl_jax.records import Rollout"),
        ("update", "from pivotrl_jax import hf"),
        ("hf", "import pivotrl_jax.chat"),
        ("rollout", "from pivotrl_jax import train"),
        ("train", "from pivotrl_jax.evaluate import main"),
        ("train", "from pivotrl_jax.report import main"),
        ("train", "from pivotrl_jax import report\nreport.read_inputs()"),
        ("model", "import ml_collections"),
    ],
)
def test_the_check_sees_what_is_forbidden(name, line):
    assert complaints(name, line)


@pytest.mark.parametrize(
    "name, line",
    [
        ("train", "from pivotrl_jax.report import write_report\nimport ml_collections"),
        ("train", "from pivotrl_jax import report\nreport.write_report()"),
        ("forest", "from pivotrl_jax.records import InputError"),
        ("rollout", "from pivotrl_jax import chat, sampler, verifiers"),
    ],
)
def test_the_check_lets_pass_what_is_allowed(name, line):
    assert not complaints(name, line)


def test_words_run_without_loading_jax():
    code = (
        "import sys, pivotrl_jax.chat, pivotrl_jax.pivots, pivotrl_jax.verifiers, pivotrl_jax.trajectories\n"
        "import pivotrl_jax.environments.toolbox\n"
        f"print(sorted({ACCELERATED!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
