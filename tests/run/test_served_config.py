"""config.rollouts: what it needs before anything is asked, and a run that loads no weights."""

import json

import pytest
from support import tiny_run
from support.configs import CONFIGS

from pivotrl_jax.pivots import rollout_files, served_profile
from pivotrl_jax.records import InputError, Rollout
from pivotrl_jax.rollouts import served as served_lib
from pivotrl_jax.run import check_config, resume
from pivotrl_jax.run import run as run_lib

URL = "http://127.0.0.1:9/v1"  # nobody is there


def config_of(**changes):
    config = CONFIGS.get_config()
    with config.unlocked():
        config.rollouts.base_url, config.rollouts.model = URL, "m"
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
    return config


TRAINING = {"rollouts__train": True, "rollouts__reload": "vllm"}


def test_training_through_an_endpoint_is_allowed_with_all_it_needs():
    check_config.check_training(config_of(**TRAINING))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rollouts__base_url": ""}, "base_url is ''"),
        ({"rollouts__reload": "none"}, "reload is 'none', so the server would keep its weights"),
        ({"rollouts__mode": "chat"}, "mode is 'chat', which gives no token ids"),
        ({"method": "e2e_rl"}, "config.method 'e2e_rl' draws with the own sampler"),
        ({"method": "sft"}, "config.method 'sft' draws with the own sampler"),
        ({"sampling__temperature": 0.7}, "temperature is 0.7"),
        ({"grpo__router": "replay"}, "experts"),
        ({"grpo__routing_agreement": True}, "experts"),
    ],
)
def test_training_through_an_endpoint_is_refused_before_it_starts(changes, why):
    with pytest.raises(InputError, match=f"config.rollouts.train is True and .*{why}"):
        check_config.check_training(config_of(**{**TRAINING, **changes}))


@pytest.mark.parametrize("method", ["random_turns", "sft", "e2e_rl"])
def test_an_endpoint_that_nobody_asks_is_refused(method):
    check_config.check_training(config_of())
    with pytest.raises(InputError, match=f"base_url is .*config.method '{method}' makes no profile"):
        check_config.check_training(config_of(method=method))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"rollouts__model": ""}, "rollouts.model is ''; name the served model"),
        ({"rollouts__base_url": "localhost:8000"}, "rollouts.base_url is 'localhost:8000'; want the address"),
        ({"rollouts__mode": "text"}, "rollouts.mode is 'text'; want 'auto' or"),
        ({"rollouts__concurrency": 0}, "rollouts.concurrency is 0"),
    ],
)
def test_an_endpoint_that_cannot_be_asked_is_refused_by_its_field(changes, why):
    with pytest.raises(InputError, match=why):
        check_config.check(config_of(**changes))


def test_prompts_for_a_served_model_need_fit_no_row_but_training_does():
    config = config_of(data__max_prompt_tokens=100_000)
    check_config.check(config)
    with pytest.raises(InputError, match="more than the longest row"):
        check_config.check_training(config)
    with pytest.raises(InputError, match="more than the longest row"):
        check_config.check(config_of(data__max_prompt_tokens=100_000, rollouts__base_url=""))


# ---- a run without weights


@pytest.fixture
def run(tmp_path):
    config = config_of(workdir=str(tmp_path))
    return run_lib.open_run(config, weights=False)


def test_a_run_without_weights_has_a_tokenizer_and_a_page(run, tmp_path):
    assert run.params is None and run.model_config is None and run.mesh is None and run.policy == ""
    assert run.chat.encode("hello")
    run.write()
    page = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert page["model"] == "m, served" and page["policy"] == "" and "model_config" not in page


def test_a_run_with_weights_takes_up_one_without(run, tmp_path):
    run.write()
    (tmp_path / "rollouts").mkdir()
    run.policy = "the fingerprint"
    run.config.rollouts.base_url, run.config.rollouts.concurrency = "http://127.0.0.1:10/v1", 3
    resume.prepare_workdir(run)
    run.config.seed = 5
    with pytest.raises(InputError, match="seed is 0 there and 5 here"):
        resume.prepare_workdir(run)


def test_a_profile_is_taken_up_the_way_it_was_asked_without_its_server(run, tmp_path):
    prompts = tiny_run.conversations(1)
    (tmp_path / "rollouts").mkdir()
    settings = tmp_path / "rollouts" / "settings.json"
    for name in ("00000.partial", "00000.jsonl", "00001.partial"):
        (tmp_path / "rollouts" / name).write_text("")
    for mode in ("chat", "completions"):
        settings.write_text(json.dumps({"model": {"served": "m", "mode": mode}}), "utf-8")
        assert served_profile.make_actor(run, prompts).mode == mode
    run.config.rollouts.mode = "chat"
    assert served_profile.make_actor(run, prompts).mode == "chat"
    assert sorted(file.name for file in (tmp_path / "rollouts").glob("0*")) == [
        "00000.jsonl",
        "00001.partial",
    ]


@pytest.mark.parametrize("asked", ["auto", "completions"])
def test_a_server_that_does_no_token_ids_is_asked_in_chat_or_refused(asked, run, monkeypatch, capsys):
    monkeypatch.setattr(served_lib.ServedActor, "probe", lambda self, request: "HTTP 404: no such route")
    run.config.rollouts.mode = asked
    if asked == "completions":
        with pytest.raises(InputError, match=r"cannot complete token ids \(HTTP 404.*mode=chat, or auto"):
            served_lib.make_served(run, tiny_run.conversations(1), "")
    else:
        assert served_lib.make_served(run, tiny_run.conversations(1), "").mode == "chat"
        assert (
            "chat completions with tools, without token ids (HTTP 404: no such route)"
            in capsys.readouterr().out
        )


@pytest.mark.parametrize(
    ("fingerprints", "said"),
    [
        (["fp_1", "fp_1"], ""),
        (["fp_1", "fp_2"], "warning: 2 models gave these rollouts: m (fp_1), m (fp_2)"),
        (["a" * 16, "a" * 16], ""),
        (["b" * 16, "b" * 16], "the server's weights are bbbbbbbbbbbbbbbb and those of"),
    ],
)
def test_the_models_that_answered_are_told_and_compared_with_pi_0(run, tmp_path, capsys, fingerprints, said):
    served = [{"mode": "chat", "model": "m", "fingerprint": name, "message": {}} for name in fingerprints]
    rollouts = [Rollout("a", g, [], [], [], True, "x", 1.0, "ok", served=s) for g, s in enumerate(served)]
    rollout_files.write(rollout_files.file_of(tmp_path / "rollouts", 0), rollouts)
    run.policy, run.config.rollouts.same_weights = "a" * 16, True
    actor = served_lib.make_served(run, [], "chat")
    if said.startswith("the server"):
        with pytest.raises(InputError, match=said):
            served_profile.tell(run, actor)
    else:
        served_profile.tell(run, actor)
        assert said in capsys.readouterr().out
    assert run.facts["served_by"] == [["m", name] for name in sorted(set(fingerprints))]
