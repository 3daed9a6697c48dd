"""A work directory belongs to one run: another config or policy is refused before anything in it changes."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from support import tiny_run
from support.configs import CONFIGS

from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import locate
from pivotrl_jax.models import sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.run import resume
from pivotrl_jax.run import run as run_lib


def a_run(workdir, policy="pi", **changes):
    config = CONFIGS.get_config()
    with config.unlocked():
        for name, value in changes.items():
            config.update_from_flattened_dict({name.replace("__", "."): value})
    return SimpleNamespace(
        config=config, workdir=workdir, shared=workdir, policy=policy, seconds={}, facts={}
    )


@pytest.fixture
def finished(tmp_path):
    page = {"config": a_run(tmp_path).config.to_dict(), "policy": "pi", "seconds": {"training": 2.0}}
    page |= {"counts": {"pivot": 3}, "table": [["pivots kept", "3"]]}
    (tmp_path / "run.json").write_text(json.dumps(page))
    (tmp_path / "pivots.jsonl").write_text("{}\n")
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "00000.jsonl").write_text("{}\n")
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def test_a_run_that_goes_on_keeps_what_was_known(finished):
    run = a_run(finished, grpo__steps=80, evaluate__tasks=10, mesh__data=2)
    resume.prepare_workdir(run)
    assert run.seconds == {"training": 2.0}
    assert run.facts == {"counts": {"pivot": 3}, "table": [["pivots kept", "3"]]}


def test_a_field_that_came_later_had_its_default(finished):
    page = json.loads((finished / "run.json").read_text("utf-8"))
    del page["config"]["profile"]["shard"]
    (finished / "run.json").write_text(json.dumps(page))
    resume.prepare_workdir(a_run(finished))
    with pytest.raises(InputError, match=r"profile.shard is '' there and '1/2' here"):
        resume.prepare_workdir(a_run(finished, profile__shard="1/2"))


@pytest.mark.parametrize(
    "changes, difference",
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"profile__lambda_diff": 0.5}, "profile.lambda_diff is 0.6 there and 0.5 here"),
        ({"grpo__learning_rate": 1e-6}, "grpo.learning_rate is 0.0003 there and 1e-06 here"),
        ({"policy": "other"}, "policy is 'pi' there and 'other' here"),
    ],
)
def test_another_run_is_refused_and_nothing_changes(finished, changes, difference):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=f"holds results of another run: {difference}; undo the change"):
        resume.prepare_workdir(a_run(finished, **changes))
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_before_training_the_filter_and_the_recipe_may_change(finished):
    (finished / "checkpoints" / "10").rmdir()
    resume.prepare_workdir(a_run(finished, profile__lambda_diff=0.5, grpo__learning_rate=1e-6))
    with pytest.raises(InputError, match="seed is 0 there"):
        resume.prepare_workdir(a_run(finished, seed=1))


def test_a_run_that_failed_before_it_sampled_binds_nothing(tmp_path, finished):
    (finished / "rollouts" / "00000.jsonl").unlink()
    (finished / "rollouts").rmdir()
    run = a_run(finished, seed=1)
    resume.prepare_workdir(run)
    assert run.facts == {} and run.seconds == {}


def test_starting_over_deletes_results_and_nothing_else(finished):
    resume.prepare_workdir(a_run(finished, seed=1, resume=False))
    assert [path.name for path in finished.iterdir()] == ["notes.txt"]


def test_rows_are_rounded_up_to_divide_over_the_mesh():
    mesh = SimpleNamespace(shape={"data": 2, "fsdp": 4, "expert": 1, "tensor": 1})
    assert [sharding.whole_rows(mesh, n) for n in (1, 8, 9)] == [8, 8, 16]


def test_a_name_that_is_neither_a_directory_nor_on_the_hub_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match="nobody/nothing: no such directory here, and the hub does not give it"
    ):
        locate.locate("nobody/nothing")


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused():
    chat, config = template.load_chat(tiny_run.ASSETS, False), tiny_run.random_config()
    run_lib.check_vocabulary(chat, config, tiny_run.ASSETS)
    run_lib.check_vocabulary(
        chat, dataclasses.replace(config, vocab_size=config.vocab_size + 64), tiny_run.ASSETS
    )
    small = dataclasses.replace(config, vocab_size=config.vocab_size - 3)
    with pytest.raises(
        InputError, match=rf"3 ids outside the model's vocab_size of {small.vocab_size}, e.g. "
    ):
        run_lib.check_vocabulary(chat, small, tiny_run.ASSETS)
