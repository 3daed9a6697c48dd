"""Benchmarks run at their smallest size and print one JSON line with what they promise. No timings here."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from support.paths import ROOT

pytestmark = pytest.mark.slow

STEP = "--prompt=64 --group=2 --completion=4 --prompts=2 --runs=1"
TURNS = "--turns=2 --trajectories=2 --length=64 --group=2 --completion=3 --runs=1 --rows=2 --curve=1,2"


def page_of(name: str, arguments: str) -> dict:
    """What a benchmark prints: stdout has to be one line of JSON."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    program = ROOT / "experiments" / "benchmarks" / f"{name}.py"
    command = [sys.executable, str(program), *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    page = json.loads(line)
    assert page["benchmark"] == name and page["machine"] and page["versions"]["jax"] and page["runs"] == 1
    return page


def needs(*modules: str):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def test_our_step_alone():
    page = page_of("rl_step", f"{STEP} --peers=")
    parts = page["ours_rollout"], page["ours_update"]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(page["ours_seconds"], rel=1e-3)  # each is printed with four digits
    assert page["settings"]["learner_slots"] == [128] and page["peer_rows"] == {}
    assert not [key for key in page if key.startswith(("speedup", "trl", "torch"))]


@needs("torch", "trl", "datasets")
def test_step_against_peers():
    page = page_of("rl_step", f"{STEP} --peer_rows=2,4")
    for side in ("ours", "trl", "torch"):
        assert all(page[f"{side}_{part}"] > 0 for part in ("seconds", "rollout", "update", "cpu"))
    assert page["speedup_trl"] == pytest.approx(page["trl_seconds"] / page["ours_seconds"], rel=1e-2)
    assert page["speedup_torch"] == pytest.approx(page["torch_seconds"] / page["ours_seconds"], rel=1e-2)
    assert set(page["peer_rows"]) == {"trl", "torch"} and set(page["peer_rows"].values()) <= {2, 4}


def test_our_profiling_alone():
    page = page_of("profiling", f"{TURNS} --peers=")
    assert page["ours_seconds"] > 0 and "transformers_seconds" not in page
    prefill = page["prefill_seconds_by_turns"]
    assert set(prefill) == {"1", "2"} and page["prefill_largest_to_smallest"] >= 1


@needs("torch")
def test_profiling_against_transformers():
    page = page_of("profiling", f"{TURNS} --batches=1,4")
    ratio = page["transformers_seconds"] / page["ours_seconds"]
    assert page["speedup_transformers"] == pytest.approx(ratio, rel=1e-2)
    assert page["transformers_batch"] in (1, 4)


def test_memory_of_a_shared_prompt():
    page = page_of("memory", "--prompt=1504 --group=4 --completion=8 --vocabulary=5000")
    for kind in ("dense", "moe"):
        peak = {way: page[f"{kind}_{way}_bytes"]["peak"] for way in ("ours", "padded", "one_row")}
        assert max(peak["ours"], peak["one_row"]) < peak["padded"]
        assert page[f"{kind}_ratio_padded"] == pytest.approx(peak["padded"] / peak["ours"], rel=1e-2)
        assert not page[f"{kind}_ours_wide_arrays"] and page[f"{kind}_padded_wide_arrays"]


def test_a_forest_is_the_padded_batch():
    page = page_of("exactness", "--forests=2")
    assert page["forests"] == 2
    assert 0 <= page["log_prob_median"] <= page["log_prob_max"] < 1e-4
    assert page["gradient_entry_max"] < 1e-3 and page["gradient_norm_max"] < 1e-3


def test_candidates_take_the_room_of_their_trajectories():
    program = ROOT / "experiments" / "benchmarks" / "candidates_size.py"
    done = subprocess.run([sys.executable, program, "--sets", "small"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    page = json.loads(done.stdout)
    assert page["said"].startswith("2000 candidates in")
    assert page["output_to_input"] < 1.1 and page["peak_mib"] < 500


@needs("starlette", "uvicorn")
def test_the_server_beside_the_sampler():
    page = page_of("serve", "--clients 2 --rounds=1 --prompt=32 --completion=8 --runs=1")
    found = page["clients"]["2"]
    assert set(found["tokens_per_second"]) == {"sampler 2 x 1", "ours", "ours, streamed"}
    assert found["share_of_sampler"] > 0 and set(found["seconds_to_first"]) == {"ours", "ours, streamed"}
    page = page_of("serve", "--memory=20 --runs=1")
    assert page["requests"] == 20 and len(page["resident_mib"]) == 10


def test_the_roofline_of_a_small_model():
    page = page_of("roofline", "--layers=1 --length=64 --runs=1")
    for name in ("forward", "both", "ceiling"):
        assert page[f"{name}_seconds"] > 0 and page[f"{name}_gflops"] > 0
    assert page["both_share"] == pytest.approx(page["both_gflops"] / page["ceiling_gflops"], rel=1e-2)
    # adapters alone are trained: of the base, the gradient needs one product more for each of forward's
    flops = {name: page[f"{name}_gflops"] * page[f"{name}_seconds"] for name in ("forward", "both")}
    assert 2 < flops["both"] / flops["forward"] < 2.6
