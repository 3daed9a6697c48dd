"""python -m pivotrl_jax.verify: one line out per line in, in order; what is wrong is said."""

import json
import subprocess
import sys

import pytest
from support.paths import ROOT

from pivotrl_jax.verifiers import VERIFIERS

AST = ROOT.parent / "shared/data/conformance/bfcl/ast.jsonl"
CALL = {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}


def verify(stdin, *arguments):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    return subprocess.run(
        [sys.executable, "-m", "pivotrl_jax.verify", *arguments], input=stdin, capture_output=True, cwd=ROOT
    )


def case(id, *items):
    return json.dumps({"id": id, "expected_action": CALL, "candidate": list(items)})


def test_every_case_gets_its_line_in_order():
    done = verify(case("b", CALL) + "\n\n" + case("a") + "\n", "--verifier=tool_call")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"id": "b", "reward": 1.0, "reason": "ok"},
        {"id": "a", "reward": 0.0, "reason": "no_call"},
    ]
    assert (done.returncode, done.stderr) == (0, b"")


def test_bad_lines_are_named_and_the_others_scored():
    lines = [case("a", CALL), "{", case("b", CALL), "[1]", '{"id": "c"}', "[" * 100_000, case("d")]
    done = verify("\n".join(lines).encode() + b"\n\xff\n", "--verifier=exact")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["a", "b", "d"]
    said = done.stderr.decode().splitlines()
    assert [line.split(":")[1].strip() for line in said] == [f"line {n}" for n in (2, 4, 5, 6, 8)]
    assert 'the field "expected_action" is missing' in said[2]
    assert done.returncode == 1 and "Traceback" not in done.stderr.decode()


def test_an_unknown_verifier_lists_the_known_ones():
    done = verify("", "--verifier=tool_cal")
    said = done.stderr.decode()
    assert done.returncode == 1 and done.stdout == b""
    assert "tool_cal" in said and ", ".join(sorted(VERIFIERS)) in said and "Traceback" not in said


def test_a_reader_that_leaves_early_is_no_error():
    lines = "".join(case(str(i), CALL) + "\n" for i in range(3000))
    command = f"{sys.executable} -m pivotrl_jax.verify --verifier=exact | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], input=lines.encode(), capture_output=True, cwd=ROOT)
    first, status = done.stdout.splitlines()
    assert (json.loads(first)["id"], status, done.stderr) == ("0", b"0", b"")


@pytest.mark.skipif(not AST.is_file(), reason="the conformance data is not here")
def test_the_conformance_file_goes_through_line_by_line():
    cases = [json.loads(line) for line in AST.read_text().splitlines()]
    done = verify(AST.read_bytes(), "--verifier=bfcl_ast")
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(v["id"], v["reward"] == 1) for v in verdicts] == [(c["id"], c["valid"]) for c in cases]


def test_no_model_is_needed():
    heavy = "('jax', 'torch', 'transformers')"
    code = f"import sys, pivotrl_jax.verify; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
