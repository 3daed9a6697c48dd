"""A profile through an endpoint, in this process or one of its own (which a test can kill):

python -m support.served_profile DIRECTORY URL COUNT [mode] [field=value of Served ...]
"""

import sys
from pathlib import Path

from pivotrl_jax import endpoints, verifiers
from pivotrl_jax.endpoints import Endpoint
from pivotrl_jax.pivots import profiling
from pivotrl_jax.rollouts.replies import COMPLETIONS
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.served import Served, ServedActor
from support import tiny_run
from support.profiles import rollouts_in

GROUP = 8
PER_SHARD = 25  # trajectories


class Chat(tiny_run.Numbers):
    template_arguments = {}


def actor(url, mode=COMPLETIONS, timeout=1.0, model="m", **fields) -> ServedActor:
    endpoint = Endpoint("the server", "config.rollouts", url, model, "OPENAI_API_KEY", timeout)
    return ServedActor(Served(endpoint, tiny_run.SAMPLING, Chat(), **fields), mode)


def profile(directory, url, count, mode=COMPLETIONS, resume=True, stopping=None, **fields):
    """(profiles, rollouts, actor) of `count` rollouts, GROUP at each of two turns of every trajectory."""
    drawn = actor(url, mode, **fields)
    prompts = tiny_run.conversations(count // (2 * GROUP))
    settings = profiling.Settings("served:m", drawn.identity, GROUP, 0, PER_SHARD, stopping)
    rollouts = Rollouts(drawn, drawn.served.chat)
    found = profiling.profile_candidates(rollouts, {}, prompts, settings, Path(directory), resume)
    return found, rollouts_in(Path(directory)), drawn


if __name__ == "__main__":
    verifiers.VERIFIERS["toy"] = tiny_run.verifier(tiny_run.odd_first)
    endpoints.FIRST_WAIT = 0.005
    directory, url, count, *more = sys.argv[1:]
    mode = more[0] if more else COMPLETIONS
    *_, drawn = profile(
        directory, url, int(count), mode, **{k: int(v) for k, v in (x.split("=") for x in more[1:])}
    )
    print(drawn.summary())
