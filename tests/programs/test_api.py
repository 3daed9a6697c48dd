"""pivotrl_jax.api: configs, verdicts, servers and whole runs from Python, and what importing it costs."""

import inspect
import json
import subprocess
import sys

import openai
import pytest
from support import tiny_run
from support.paths import ROOT
from support.train_cli import MICRO

import pivotrl_jax
from pivotrl_jax import api, pipeline, verifiers
from pivotrl_jax.checkpoints.locate import EMBEDDED
from pivotrl_jax.records import InputError

CALL = {"type": "function_call", "name": "f", "arguments": '{"a": 1}'}


def test_importing_it_loads_no_jax_and_the_names_are_there():
    code = (
        "import sys, pivotrl_jax\n"
        "assert 'pivotrl_jax.api' not in sys.modules, 'names are imported when they are used'\n"
        "assert set(pivotrl_jax.__all__) <= set(dir(pivotrl_jax))\n"
        "for name in pivotrl_jax.__all__: getattr(pivotrl_jax, name)\n"
        "import pivotrl_jax.api as pivotrl\n"
        "for name in pivotrl.__all__: getattr(pivotrl, name)\n"
        "print(sorted({'jax', 'flax', 'transformers', 'matplotlib', 'absl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_name_is_documented_and_no_program_has_one_of_the_package():
    for name in api.__all__:
        assert inspect.getdoc(getattr(api, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        pivotrl_jax.nosuch  # noqa: B018
    programs = {path.stem for path in (ROOT / "pivotrl_jax").glob("[a-z]*.py")} - {"api"}
    assert not programs & set(pivotrl_jax.__all__)


# ---- configs


def test_a_config_has_a_name_a_size_and_other_values():
    config = api.load_config(
        "bfcl:real", seed=3, grpo={"steps": 7, "batch": {"rows": 2}}, **{"data.limit": 5}
    )
    assert config.data.source == "bfcl"
    assert (config.seed, config.grpo.steps, config.grpo.batch.rows, config.data.limit) == (3, 7, 2, 5)
    assert config == api.load_config(
        ROOT / "configs" / "bfcl.py:real", seed=3, data={"limit": 5}, grpo={"batch": {"rows": 2}, "steps": 7}
    )
    with pytest.raises(AttributeError, match="stepz"):
        config.grpo.stepz = 3
    assert api.load_config("swe", data={"verifier_options": {"level": "exact"}}).data.verifier_options.level


@pytest.mark.parametrize(
    "name, overrides, words",
    [
        ("bfgl", {}, "config=bfgl: no config is called 'bfgl'; known are bfcl, browsecomp"),
        ("nosuch.py", {}, "the config file cannot be read .*nosuch.py.*; check the path"),
        ("bfcl:huge", {}, "no size 'huge'; choose one of tiny, real"),
        (
            "bfcl",
            {"grpo": {"stepz": 1}},
            "grpo.stepz: the config has no field 'stepz'; did you mean 'steps'?",
        ),
        ("bfcl", {"nosuch": 1}, "nosuch: the config has no field 'nosuch'"),
        ("bfcl", {"grpo": 1}, "grpo is 1; it is a section, so give a dict of its fields"),
        ("bfcl", {"seed": "one"}, "seed is 'one'; want a whole number from 0"),
        ("bfcl", {"grpo": {"learning_rate": "x"}}, "grpo.learning_rate is 'x'; want a number above 0"),
        ("bfcl", {"data": {"source": ["a"]}}, r"data.source is \['a'\]; want a text"),
        ("", {}, "the config's name is empty; want one of bfcl, "),
        (None, {}, "the config's name is of type NoneType; want one of bfcl, "),
        ({"seed": 1}, {}, "the config's name is of type dict; want one of bfcl, "),
        ("bfcl", {"seed.x": 1}, "seed.x: the config has no field 'x'"),
    ],
)
def test_a_config_that_is_wrong_is_one_sentence(name, overrides, words):
    with pytest.raises(InputError, match=words) as e:
        api.load_config(name, **overrides)
    assert "\n" not in str(e.value)


def test_a_path_of_a_config_may_be_a_path(tmp_path):
    config = api.load_config("bfcl", workdir=tmp_path / "run", data={"source": tmp_path})
    assert (config.workdir, config.data.source) == (str(tmp_path / "run"), str(tmp_path))


def test_a_config_file_that_is_none_is_one_sentence(tmp_path):
    for text, words in (("x = 1", "defines no get_config"), ("import nosuch", "cannot be loaded")):
        (tmp_path / "mine.py").write_text(text)
        with pytest.raises(InputError, match=words):
            api.load_config(tmp_path / "mine.py")


def test_names_of_tables_are_checked_before_anything_is_loaded():
    for function in (api.train, api.find_pivots, api.evaluate, api.self_check):
        with pytest.raises(InputError, match=r"config\.grpo\.loss is 'nosuch'"):
            function(api.load_config("bfcl", grpo={"loss": "nosuch"}))


@pytest.mark.parametrize("function", ["train", "find_pivots", "evaluate", "self_check"])
def test_what_is_no_config_is_refused(function):
    for value in (None, "bfcl", {"seed": 1}):
        with pytest.raises(InputError, match=r"config is of type .*; want what load_config gives"):
            getattr(api, function)(value)


def test_an_empty_path_is_not_the_current_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}]}\n')
    for empty in ("", [""], "  "):
        with pytest.raises(InputError, match="the path is empty; name a path"):
            api.load_trajectories(empty)
    with pytest.raises(InputError, match="the path is empty"):
        api.open_run("")
    for field in ("data.source", "workdir", "model.checkpoint"):
        with pytest.raises(InputError, match=rf"config\.{field} is (empty|'')"):
            api.self_check(api.load_config("bfcl", **{field: ""}))
    with pytest.raises(InputError, match=r"config\.model.checkpoint is empty"):
        api.evaluate(api.load_config("bfcl", workdir=str(tmp_path / "run")), "")


def test_a_value_that_a_config_was_given_later_is_checked_first(tmp_path):
    config = api.load_config("bfcl", workdir=str(tmp_path / "run"))
    config.grpo.steps = None
    with pytest.raises(InputError, match=r"config\.grpo.steps is None; want a whole number from 1 up"):
        api.train(config)


# ---- verdicts


def test_cases_are_scored_in_order_and_bad_ones_are_named():
    cases = [
        {"id": "a", "expected_action": CALL, "candidate": [CALL]},
        "{",
        b"",
        json.dumps({"id": "c", "expected_action": CALL, "candidate": []}),
    ]
    scored = list(api.verify(cases, "tool_call"))
    assert [(s.number, s.id, s.verdict and s.verdict.reward) for s in scored] == [
        (1, "a", 1.0), (2, "", None), (4, "c", 0.0),
    ]  # fmt: skip
    assert "not valid JSON" in scored[1].error and not scored[0].error


def test_the_verifier_and_the_judge_are_checked_at_once():
    with pytest.raises(InputError, match="which is none of the verifiers"):
        api.verify([], "nosuch")
    with pytest.raises(InputError, match="need --judge_url"):
        api.verify([], "exact", judge_model="m")


def test_a_name_that_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(InputError, match="--verifier is 3, and the name of one of the verifiers is wanted"):
        api.verify([], 3)
    with pytest.raises(InputError, match="format is None, and the name of one of the readers"):
        api.load_trajectories(tmp_path, format=None)
    with pytest.raises(InputError, match="verifier is 3, and the name"):
        api.load_trajectories(tmp_path, verifier=3)


@pytest.mark.parametrize("cases", [None, 3, {"id": "a", "expected_action": CALL}, "{}"])
def test_what_is_no_list_of_cases_is_refused(cases):
    with pytest.raises(InputError, match=r"cases is of type .*; want a list of cases"):
        api.verify(cases, "tool_call")


# ---- paths


def test_trajectories_need_paths_and_a_verifier_that_exists(tmp_path):
    with pytest.raises(InputError, match="paths is None; want the path of a file"):
        api.load_trajectories(None)
    with pytest.raises(InputError, match="verifier is 'zzz', which is none of the verifiers"):
        api.load_trajectories(tmp_path, verifier="zzz")


def test_a_path_may_begin_at_home_and_is_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    assert api.open_run("~/run").path == tmp_path / "run"
    for read in (api.open_run, api.load_trajectories):
        with pytest.raises(InputError, match="is 'gs://b/x', and only paths of this machine's"):
            read("gs://b/x")


def test_a_checkpoint_to_evaluate_may_begin_at_home(tmp_path, monkeypatch):
    """Also where its weights are read before the run is opened, to see whether they are float32."""

    class Opened(Exception):
        pass

    def opened(config):
        raise Opened(config.model.checkpoint)

    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hf").symlink_to(EMBEDDED)
    monkeypatch.setattr(pipeline.run_lib, "open_run", opened)
    config = api.load_config("bfcl", model={"param_dtype": "bfloat16"}, workdir=str(tmp_path / "run"))
    with pytest.raises(Opened, match=str(tmp_path / "hf")):
        api.evaluate(config, "~/hf")


# ---- a server and whole runs


def test_a_server_answers_and_ends():
    sizes = {"context": 256, "completion_tokens": 8, "rows": 1, "slots": 2}
    with api.serve("embedded", port=0, **sizes) as served:
        client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
        reply = client.completions.create(model=served.model, prompt="hello", max_tokens=4)
        assert reply.usage.completion_tokens <= 4
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    with pytest.raises(InputError, match=r"serve has no option 'prt'; it has .*port"):
        api.serve(prt=1)
    with pytest.raises(InputError, match="port is 'x'; serve wants a number for it"):
        api.serve(port="x", **sizes)
    with pytest.raises(InputError, match="cannot listen"):
        api.serve(host="256.0.0.1", **sizes)


@pytest.fixture
def config(checkpoint, tmp_path, monkeypatch):
    """The main job of two steps. A coin judges, so that there are pivots."""
    monkeypatch.setitem(verifiers.VERIFIERS, "bfcl_multi_turn", verifiers.VERIFIERS["bfcl_multi_turn"])
    tiny_run.flip_coins()
    values = dict(pair.split("=") for pair in MICRO)
    values = {name: json.loads(v) if v[0] != "(" else (1024,) for name, v in values.items()}
    config = api.load_config("bfcl", workdir=str(tmp_path / "run"), **values)
    config.model.checkpoint = str(checkpoint)
    return config


@pytest.mark.slow
def test_a_whole_run_from_python(config, capsys):
    checked = api.self_check(config)
    assert checked.table()[0].startswith("self-check: ")
    run = api.find_pivots(config)
    assert run.selection.kept and len(run.pivots) == len(run.selection.kept)
    assert run.selection.kept == api.open_run(config.workdir).selection.kept
    assert len(run.turns("pivot", 1)[0].rollouts) == 4
    run = api.train(config)
    assert dict(run.table)["method"] == "pivotrl" and len(run.metrics) == 2
    assert run.counts["profiling_rollout_turns"] == 4 * len(run.candidates)
    page = run._repr_html_()
    assert "<svg" in page and "Mean reward of the batch" in page
    after = api.evaluate(config, run.path / "hf")
    assert config.model.checkpoint != str(run.path / "hf"), "the caller's config is as it was"
    stored = json.loads((run.path / "evaluations" / "after.json").read_text("utf-8"))
    found = json.loads(after.file.read_text("utf-8"))
    assert found["results"] == stored["results"]
    assert after.measures["episode_success"] == run.evaluation["after"]["episode_success"]
