"""Training on rollouts of an endpoint: before every step its server gets the step's weights.

The weights are written to served/ in the work directory, in Hugging Face layout, and the server is told to
load them from there; it must see the same files. vLLM and SGLang have routes for it.
"""

from collections.abc import Sequence
from pathlib import Path

from pivotrl_jax.endpoints import Endpoint
from pivotrl_jax.models import decoder
from pivotrl_jax.records import InputError, Prompt
from pivotrl_jax.rollouts.replies import COMPLETIONS
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.served import make_served
from pivotrl_jax.run import export, hosts
from pivotrl_jax.run.run import Run

DIRECTORY = "served"


def routes(reload: str, directory: Path) -> list[tuple[str, dict]]:
    """(path, body) of the requests that make a server load the weights in `directory`, in order."""
    folder = str(directory.resolve())
    if reload == "vllm":
        load = {"method": "reload_weights", "kwargs": {"weights_path": folder}}
        return [("/collective_rpc", load), ("/reset_prefix_cache", {})]
    return [("/update_weights_from_disk", {"model_path": folder})]  # SGLang drops its cache by itself


def reload_weights(endpoint: Endpoint, reload: str, directory: Path) -> None:
    """Make the server load the weights in `directory`. Raises InputError when it does not."""
    import openai

    root = endpoint.base_url.rstrip("/").removesuffix("/v1")
    with endpoint.client() as client:
        for path, body in routes(reload, directory):
            try:
                reply = client.post(root + path, cast_to=object, body=body)
            except openai.OpenAIError as e:
                why = endpoint.failure(e).why
                raise InputError(f"{endpoint.name} did not load the new weights ({why})") from None
            if isinstance(reply, dict) and reply.get("success") is False:
                why = endpoint.shown(str(reply.get("message")))
                raise InputError(f"{endpoint.name} did not load the weights in {directory} ({why})")


def make_rollouts(run: Run, prompts: Sequence[Prompt]) -> Rollouts:
    """The rollouts of training through `config.rollouts`. Raises InputError when the server does not complete
    token ids, since there would be nothing to train on."""
    c, directory = run.config.rollouts, run.shared / DIRECTORY

    def push(params: decoder.Params) -> None:
        export.save_merged(run, params, directory)
        hosts.on_first_process(lambda: reload_weights(actor.served.endpoint, c.reload, directory))

    actor = make_served(run, prompts, "", push=push, on_first_process=hosts.on_first_process)
    if actor.mode != COMPLETIONS:
        raise InputError(
            f"config.rollouts.train is True, but {actor.served.endpoint.name} gives no token ids to train "
            "on; name one that does, or set train to False"
        )
    return Rollouts(actor, run.chat, run.verifier, run.judge)
