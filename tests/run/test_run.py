"""A work directory belongs to one run: another config or policy is refused before anything in it changes."""

import dataclasses
import json
import shutil
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
        config=config,
        workdir=workdir,
        shared=workdir,
        policy=policy,
        seconds={},
        facts={},
        write=lambda: None,
    )


@pytest.fixture
def finished(tmp_path):
    page = {"config": a_run(tmp_path).config.to_dict(), "policy": "pi", "seconds": {"training": 2.0}}
    page |= {"counts": {"pivot": 3}, "table": [["pivots kept", "3"]]}
    (tmp_path / "run.json").write_text(json.dumps(page))
    (tmp_path / "pivots.jsonl").write_text("{}\n")
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "00000.jsonl").write_text("{}\n")
    (tmp_path / "checkpoints" / "10" / "state").mkdir(parents=True)
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
    shutil.rmtree(finished / "checkpoints" / "10")
    resume.prepare_workdir(a_run(finished, profile__lambda_diff=0.5, grpo__learning_rate=1e-6))
    with pytest.raises(InputError, match="seed is 0 there"):
        resume.prepare_workdir(a_run(finished, seed=1))


def test_a_run_that_failed_before_it_sampled_binds_nothing(tmp_path, finished):
    (finished / "rollouts" / "00000.jsonl").unlink()
    (finished / "rollouts").rmdir()
    run = a_run(finished, seed=1)
    resume.prepare_workdir(run)
    assert run.facts == {} and run.seconds == {}


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


FOREIGN = (
    *("notes.txt", "rollouts/mine.jsonl", "rollouts/12.jsonl", "hf/model.gguf", "hf/other.safetensors"),
    *("evaluations/table.json", "checkpoints/500/weights.pt", "checkpoints/readme", "reprofiled/1/notes"),
    *("tensorboard/other", "served/x/config.json", "adapter/train.py", "resampled/rollouts/mine.jsonl"),
)
OWN = (
    *("candidates.jsonl", "skipped.jsonl", "rollouts/settings.json", "rollouts/00001.jsonl"),
    *(
        "rollouts/00001.screen.json",
        "rollouts/00002.partial",
        "profiles.jsonl",
        "checkpoints/20/host/metadata",
    ),
    *("checkpoints/30.orbax-checkpoint-tmp/state/x", "reprofiled/1/rollouts/00000.jsonl", "hf/config.json"),
    *("hf/model-00001-of-00002.safetensors", "hf/tokenizer.json", "adapter/adapter_model.safetensors"),
    *("resampled/rollouts/00000.npz", "resampled/rollouts/settings.json", "resampled/profiles.jsonl"),
    *("tensorboard/events.out.tfevents.1", "report.html", "trained_rewards.jsonl", ".hf.123.tmp/config.json"),
)


def test_starting_over_deletes_results_and_nothing_else(finished):
    for name in (*FOREIGN, *OWN):
        (finished / name).parent.mkdir(parents=True, exist_ok=True)
        (finished / name).write_text("[]")
    (finished / "evaluations" / "before.json").write_text('{"identity": {}, "results": {}}')
    resume.prepare_workdir(a_run(finished, seed=1, resume=False))
    assert files_of(finished) == set(FOREIGN)
    assert not (finished / "checkpoints" / "10").exists()


@pytest.mark.parametrize("field", ["model__checkpoint", "data__source", "data__tools"])
def test_what_a_run_starts_from_is_not_deleted_with_the_results(finished, field):
    (finished / "hf").mkdir()
    (finished / "hf" / "config.json").write_text("{}")
    before = files_of(finished)
    with pytest.raises(InputError, match="=False deletes with the results"):
        resume.prepare_workdir(a_run(finished, resume=False, **{field: str(finished / "hf")}))
    assert files_of(finished) == before
    outside = str(finished.parent / "elsewhere")
    resume.prepare_workdir(a_run(finished, resume=False, **{field: outside}))


def test_another_run_is_refused_where_one_was_trained_without_a_profile(finished):
    shutil.rmtree(finished / "rollouts")
    page = json.loads((finished / "run.json").read_text())
    page["config"]["method"] = "random_turns"
    (finished / "run.json").write_text(json.dumps(page))
    before = (finished / "run.json").read_text()
    with pytest.raises(InputError, match=r"results of another run: .*learning_rate"):
        resume.prepare_workdir(a_run(finished, method="random_turns", grpo__learning_rate=0.5))
    assert (finished / "run.json").read_text() == before
    resume.prepare_workdir(a_run(finished, method="random_turns", sft__save_every=3))


def test_an_export_that_was_killed_between_two_renames_is_put_back(finished):
    old = finished / ".hf.123.old"
    old.mkdir()
    (old / "notes.md").write_text("mine")
    (finished / ".hf.123.tmp").mkdir()
    resume.prepare_workdir(a_run(finished))
    assert (finished / "hf" / "notes.md").read_text() == "mine"
    assert not old.exists() and not (finished / ".hf.123.tmp").exists()


@pytest.mark.parametrize("again", [True, False])
@pytest.mark.parametrize("name", ["hf/config.json", "checkpoints/500/state/x", "metrics.jsonl", "adapter/x"])
def test_what_no_run_has_written_is_neither_deleted_nor_written_over(tmp_path, again, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    (tmp_path / "run.json").write_text('{"name": "of another tool"}')
    would = "write over" if again else "delete"
    with pytest.raises(
        InputError, match=f"holds {name.split('/')[0]}, run.json, and .*would {would} files there; name"
    ):
        resume.prepare_workdir(a_run(tmp_path, resume=again))
    assert files_of(tmp_path) == {name, "run.json"} and (tmp_path / name).read_text() == "mine"


def test_rollouts_and_evaluations_may_be_brought_along(tmp_path):
    for name in ("rollouts/settings.json", "evaluations/before.json", "candidates.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    resume.prepare_workdir(a_run(tmp_path))
    with pytest.raises(InputError, match=r"holds candidates\.jsonl, rollouts, and"):
        resume.prepare_workdir(a_run(tmp_path, resume=False))
    assert len(files_of(tmp_path)) == 4


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
