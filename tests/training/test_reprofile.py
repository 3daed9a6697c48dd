"""Profiling again while training: when, on what is trained then, and that a kill anywhere changes nothing."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support import tiny_run
from support.configs import CONFIGS
from support.forests import MOE
from support.learning import Killed, config_of, equal, fit, metrics
from support.profiles import rollouts_in

from pivotrl_jax import verifiers
from pivotrl_jax.checkpoints import fingerprint
from pivotrl_jax.checkpoints.orbax import Checkpoints
from pivotrl_jax.pivots import profiling
from pivotrl_jax.records import InputError, Pivot, Profile, read_records
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.training import loop, method, reprofile

PROMPTS = tiny_run.conversations(5)
CANDIDATES = [prompt.candidate for prompt in PROMPTS]
CHAT = tiny_run.Known(PROMPTS)
FIRST = PROMPTS[:3]  # what a run begins with
STEPS, AT = 7, [3, 5]  # validations never rise, and a patience of 2: profiles before these steps
SECTIONS = {
    "profile": {"group_size": 4, "lambda_diff": 1.0, "trajectories_per_shard": 2},
    "reprofile": {"patience": 2, "most": 2},
}


def a_run(workdir, **sections):
    config = CONFIGS.get_config()
    for name, values in (SECTIONS | sections).items():
        config[name].update({**SECTIONS.get(name, {}), **values})
    return SimpleNamespace(
        config=config,
        workdir=workdir,
        mesh=tiny_run.mesh(),
        chat=CHAT,
        policy="pi",
        trained_config=MOE,
        verifier=None,
        judge=None,
    )


def train(workdir, steps=STEPS, save_every=100, on_step=lambda step: None, phases=None, **sections):
    """(parameters, candidate ids of every step) of a run that begins with FIRST."""
    run, seen = a_run(workdir, **sections), []
    phases = phases or reprofile.phases_of(run, CANDIDATES, FIRST)

    class Noting(Rollouts):
        def sample(self, params, prompts, *rest, **more):
            seen.append([prompt.candidate.id for prompt in prompts])
            return super().sample(params, prompts, *rest, **more)

    rollouts = Noting(tiny_run.actor(), CHAT)
    with pytest.MonkeyPatch.context() as patch, Checkpoints(workdir / "checkpoints", {}, 2) as checkpoints:
        patch.setitem(verifiers.VERIFIERS, "toy", tiny_run.verifier(tiny_run.odd_first))
        patch.setattr(reprofile, "make_rollouts", lambda run, shape, **more: Rollouts(tiny_run.actor(), CHAT))
        validate = lambda steps, params: {"validation/turn_pass": 0.5}  # noqa: E731
        io = loop.LoopIO(checkpoints, workdir, True, validate, on_step)
        config = config_of(steps=steps)
        state, totals = fit(config, rollouts, tiny_run.learner(), phases, io, save_every)
    assert totals["rollout_turns"] == steps * config.grpo.pivots_per_step * config.grpo.group_size
    return jax.tree.map(np.asarray, jax.device_get(state.params)), seen


def kill_after(last):
    def kill(step):
        if step == last:
            raise Killed

    return kill


def pivots_of(workdir, number):
    return [p.candidate.id for p in read_records(workdir / f"reprofiled/{number}/pivots.jsonl", Pivot)]


def files(workdir):
    found = sorted((workdir / "reprofiled").rglob("*.json*"))
    return {str(file.relative_to(workdir)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(workdir, parameters, candidate ids of every step) of a run in one go."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, *train(workdir)


def assert_the_same(whole, workdir, params):
    assert equal(params, whole[1])
    assert metrics(workdir) == metrics(whole[0])
    assert files(workdir) == files(whole[0])


# ---- a run in one go


def test_it_profiles_all_candidates_with_the_current_policy(whole):
    workdir, *_ = whole
    assert [line["step"] for line in metrics(workdir) if "reprofiled" in line] == AT
    policies = []
    for number in (1, 2):
        profiles = read_records(workdir / f"reprofiled/{number}/profiles.jsonl", Profile)
        assert [p.candidate_id for p in profiles] == [c.id for c in CANDIDATES]
        assert all(len(p.rewards) == 4 for p in profiles)
        mixed = [p.candidate_id for p in profiles if 0 < p.mean < 1]
        assert pivots_of(workdir, number) == mixed and len(mixed) > 1
        policies += {p.policy for p in profiles}
    assert len(set(policies)) == 2 and policies[0].startswith("pi@3:") and policies[1].startswith("pi@5:")
    rewards = [
        [p.rewards for p in read_records(workdir / f"reprofiled/{n}/profiles.jsonl", Profile)] for n in (1, 2)
    ]
    assert rewards[0] != rewards[1], "another policy, and draws of its own"


def test_metrics_say_when_how_many_and_at_what_cost(whole):
    lines = {line["step"]: line for line in metrics(whole[0])}
    for number, step in enumerate(AT, 1):
        assert lines[step]["reprofiled"] == 1 and lines[step]["pivots"] == len(pivots_of(whole[0], number))
        assert lines[step]["profiling_rollout_turns"] == 4 * len(CANDIDATES)
    others = [line for step, line in lines.items() if step not in AT]
    assert not any({"reprofiled", "pivots", "profiling_rollout_turns"} & set(line) for line in others)


def test_it_trains_on_the_new_pivots_in_an_order_that_starts_anew(whole):
    workdir, _, seen = whole
    pools = [[p.candidate.id for p in FIRST], pivots_of(workdir, 1), pivots_of(workdir, 2)]
    for step, ids in enumerate(seen):
        phase = sum(step >= at for at in AT)
        first, pool = [0, *AT][phase], pools[phase]
        order = method.items_of_step(step - first, len(pool), config_of().grpo.pivots_per_step, 0)
        assert ids == [pool[i] for i in order]


def test_a_checkpoint_is_there_before_every_profile(whole):
    assert sorted(p.name for p in (whole[0] / "checkpoints").glob("[0-9]*")) == ["5", "7"]


def test_off_or_not_triggered_it_is_the_run_that_it_was(tmp_path, whole):
    off = reprofile.phases_of(a_run(tmp_path, reprofile={"patience": 0}), CANDIDATES, FIRST)
    assert type(off) is reprofile.OnePhase
    plain, _ = train(tmp_path / "plain", steps=4, phases=reprofile.OnePhase(FIRST))
    waiting, _ = train(tmp_path / "waiting", steps=4, reprofile={"patience": 9})
    assert equal(plain, waiting) and metrics(tmp_path / "plain") == metrics(tmp_path / "waiting")
    assert metrics(tmp_path / "plain")[:3] == metrics(whole[0])[:3]
    assert not (tmp_path / "waiting" / "reprofiled").exists()


# ---- kills


def killed_while_profiling(workdir, monkeypatch, number, **more):
    """Kill in the second shard of a profile, after the first was written."""
    calls, sample_shard = [], profiling._sample_shard

    def killed(*args):
        calls.append(1)
        if len(calls) == 3 * (number - 1) + 2:  # three shards a profile
            raise Killed
        return sample_shard(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(profiling, "_sample_shard", killed)
        train(workdir, **more)
    return workdir / f"reprofiled/{number}/rollouts/00000.jsonl"


@pytest.mark.parametrize("number", [1, 2])
def test_killed_while_profiling(whole, tmp_path, monkeypatch, number):
    shard = killed_while_profiling(tmp_path, monkeypatch, number)
    assert not (tmp_path / f"reprofiled/{number}/pivots.jsonl").exists()
    written = shard.stat().st_mtime_ns
    params, seen = train(tmp_path)
    assert shard.stat().st_mtime_ns == written, "what was sampled is taken up"
    assert seen == whole[2][AT[number - 1] :], "no step is done twice"
    assert_the_same(whole, tmp_path, params)


def test_killed_after_the_profile_between_checkpoints(whole, tmp_path):
    """Step 4 was written to metrics.jsonl, but the latest checkpoint is that before the profile."""
    with pytest.raises(Killed):
        train(tmp_path, on_step=kill_after(5))
    assert [line["step"] for line in metrics(tmp_path)] == [0, 1, 2, 3, 4]
    params, seen = train(tmp_path)
    assert seen == whole[2][3:]
    assert_the_same(whole, tmp_path, params)


def test_killed_where_a_checkpoint_is_of_the_new_phase(whole, tmp_path):
    """The pivots are read back from disk."""
    with pytest.raises(Killed):
        train(tmp_path, save_every=2, on_step=kill_after(4))
    params, seen = train(tmp_path)
    assert seen == whole[2][4:]
    assert_the_same(whole, tmp_path, params)


def test_without_the_checkpoint_before_it_steps_are_done_again_and_the_profile_is_read_back(
    whole, tmp_path, monkeypatch
):
    with pytest.raises(Killed):
        train(tmp_path, save_every=2, on_step=kill_after(3))
    shard = killed_while_profiling(tmp_path, monkeypatch, 1)
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    written = shard.stat().st_mtime_ns
    params, seen = train(tmp_path)
    assert seen == whole[2][2:] and shard.stat().st_mtime_ns == written
    assert_the_same(whole, tmp_path, params)


def test_rollouts_of_another_policy_are_drawn_anew(whole, tmp_path, monkeypatch):
    """As where the steps before were done again with other roundings."""
    killed_while_profiling(tmp_path, monkeypatch, 1)
    settings = tmp_path / "reprofiled/1/rollouts/settings.json"
    settings.write_text(settings.read_text().replace("pi@3:", "pi@3:0"))
    (tmp_path / "reprofiled/1/rollouts/00000.jsonl").write_text("of another policy\n")
    params, _ = train(tmp_path)
    assert_the_same(whole, tmp_path, params)


def test_a_finished_run_that_is_made_longer_is_the_longer_run(whole, tmp_path):
    train(tmp_path, steps=3)
    assert not (tmp_path / "reprofiled").exists(), "no step follows that would use it"
    params, _ = train(tmp_path)
    assert_the_same(whole, tmp_path, params)


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda file: file.unlink(), r"no such file, though step 3 of metrics\.jsonl began to train on its"),
        (lambda file: file.write_text(""), r"holds 0 pivots, but step 3 of metrics\.jsonl began to train on"),
    ],
)
def test_pivots_that_are_gone_are_one_sentence(tmp_path, spoil, sentence):
    train(tmp_path, steps=4)
    spoil(tmp_path / "reprofiled/1/pivots.jsonl")
    with pytest.raises(InputError, match=sentence):
        train(tmp_path, steps=5)


def test_without_the_metrics_of_earlier_steps_nothing_is_decided(tmp_path):
    train(tmp_path, steps=4)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match=r"metrics\.jsonl: holds 0 of the 4 steps before the checkpoint"):
        train(tmp_path, steps=5)


# ---- no pivots


def test_where_none_is_found_the_old_pivots_stay_for_good(tmp_path, capsys):
    """Of four rewards no mixed ones have a mean below 0.1."""
    params, seen = train(tmp_path / "none", profile={"lambda_diff": 0.1})
    lines = [line for line in metrics(tmp_path / "none") if "reprofiled" in line]
    assert [(line["step"], line["pivots"]) for line in lines] == [(3, 0)]
    assert "no pivot any more: the 3 old ones are trained on to the end" in capsys.readouterr().out
    plain, order = train(tmp_path / "plain", phases=reprofile.OnePhase(FIRST))
    assert equal(params, plain) and seen == order
    with pytest.raises(Killed):
        train(tmp_path / "cut", profile={"lambda_diff": 0.1}, save_every=2, on_step=kill_after(4))
    again, rest = train(tmp_path / "cut", profile={"lambda_diff": 0.1})
    assert equal(again, plain) and rest == order[4:]


def test_it_may_profile_adaptively(tmp_path):
    """Draws end where a full profile could not decide otherwise; the metrics count what was drawn."""
    train(tmp_path, steps=4, profile={"adaptive": {"round": 1, "error": 0.0}})
    drawn = len(rollouts_in(tmp_path / "reprofiled/1/rollouts"))
    (line,) = [line for line in metrics(tmp_path) if "reprofiled" in line]
    assert line["profiling_rollout_turns"] == drawn < 4 * len(CANDIDATES)
    assert len(pivots_of(tmp_path, 1)) == line["pivots"] > 0


# ---- what it is identified by


def test_a_fingerprint_sees_every_bit_and_place():
    params = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((4, 2), np.float32)}

    def of(**change):
        return fingerprint.params_fingerprint(
            jax.tree.map(jax.numpy.asarray, params | change), tiny_run.mesh()
        )

    a, b = params["a"], params["b"]
    flipped = a.copy()
    flipped[1, 2] = np.nextafter(flipped[1, 2], 9, dtype=np.float32)
    zero = a.copy()
    zero[0, 0] = -0.0
    found = [of(), of(a=flipped), of(a=zero), of(a=a[::-1].copy()), of(a=a[:, ::-1].copy()), of(b=b * 2)]
    found += [of(a=b, b=a), of(a=a.astype(jax.numpy.bfloat16))]
    assert len(set(found)) == len(found) and all(len(x) == 16 for x in found)
    assert of() == found[0] == of(a=a.copy())


def test_a_checkpoint_knows_what_decides_only_where_something_is_decided():
    config = CONFIGS.get_config()
    assert reprofile.identity(config) == {}
    config.reprofile.std_fraction = 0.5
    assert reprofile.identity(config) == {
        "reprofile": {**config.reprofile.to_dict(), "watches": "group_reward_std"}
    }
    config.reprofile.patience = 2
    found = json.loads(json.dumps(reprofile.identity(config)))
    assert found["validation"]["every"] == 0 and "batch" not in found["validation"]
