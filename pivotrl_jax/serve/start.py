"""Any checkpoint behind an OpenAI-compatible server:
`python -m pivotrl_jax.serve --checkpoint=runs/bfcl/hf [--port=8000]`

Then `curl http://127.0.0.1:8000/v1/models`, the `openai` client or LiteLLM; docs/serve.md says what a request
may ask. The server ends on SIGINT or SIGTERM: it takes no new requests, and open ones have --grace seconds to
finish. It uses one device.
"""

import argparse
import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType

from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import hf, hf_config, locate
from pivotrl_jax.models import decoder, sharding
from pivotrl_jax.records import InputError
from pivotrl_jax.run import run as run_lib

try:
    from pivotrl_jax.serve import server
    from pivotrl_jax.serve.app import Options, Service
except ModuleNotFoundError as e:  # starlette or uvicorn
    raise InputError(f"{e.name} is not installed; pip install 'pivotrl-jax[serve]'") from None
from pivotrl_jax.serve.engine import Engine
from pivotrl_jax.serve.programs import Capacity
from pivotrl_jax.serve.requests import Limits

MAX_CHOICES = 128  # completions of a request
LONGEST = 4096  # tokens of prompt and completion, unless told otherwise


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pivotrl serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="a directory, FILE.gguf, an adapter, a name on the hub, embedded")
    add("--model", help="its name in requests; the checkpoint's if not given")
    add("--dtype", choices=["float32", "bfloat16"], help="compute in it; the checkpoint's own if not given")
    add(
        "--chat_template",
        default="",
        help="instead of the checkpoint's: a name, e.g. smollm2_hermes, or a file",
    )
    add("--chat_template_arguments", default="{}", help="""JSON, e.g. '{"enable_thinking": false}'""")
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in; set an API key then")
    add("--port", type=int, default=8000, help="0 takes any that is free")
    add("--api_key_env", metavar="NAME", help="the environment variable that holds the API key")
    add("--api_key_file", metavar="FILE", help="the file that holds the API key")
    add("--context", type=int, help=f"tokens of prompt and completion; the model's, at most {LONGEST}")
    add("--completion_tokens", type=int, default=1024, help="of the longest completion")
    add("--rows", type=int, default=8, help="rows of the cache; a row holds prompts, shared by its slots")
    add("--slots", type=int, default=8, help="completions of a row that are decoded at a time")
    add("--row_tokens", type=int, help="prompt tokens that a row holds; --context if not given")
    add("--queue", type=int, default=256, help="completions that may wait; more are refused with 429")
    add("--max_body_bytes", type=int, default=1_000_000, help="of a request")
    add("--grace", type=float, default=10, help="seconds for open requests to finish at the end")
    return parser


def api_key(given: argparse.Namespace) -> str:
    """The API key; "" if none is asked for. Raises InputError."""
    if given.api_key_env:
        key, where = os.environ.get(given.api_key_env, ""), f"the environment variable {given.api_key_env}"
    elif given.api_key_file:
        try:
            key = Path(given.api_key_file).read_text("utf-8")
        except (OSError, ValueError) as e:
            raise InputError(f"--api_key_file {given.api_key_file} cannot be read ({e})") from None
        where = given.api_key_file
    else:
        return ""
    if not key.strip():
        raise InputError(f"{where} holds no API key; set one, or leave the option out")
    return key.strip()


def sizes(given: argparse.Namespace, checkpoint: Path) -> tuple[int, Capacity]:
    """(tokens of prompt and completion, the size of the cache). Raises InputError."""
    own = hf_config.context_length(checkpoint)
    context = given.context or min(own or LONGEST, LONGEST)
    completion, row_tokens = min(given.completion_tokens, context - 1), given.row_tokens or context
    for name, value in (
        ("rows", given.rows),
        ("slots", given.slots),
        ("completion_tokens", completion),
        ("row_tokens", row_tokens),
        ("queue", given.queue),
        ("max_body_bytes", given.max_body_bytes),
    ):
        if value < 1:
            raise InputError(f"--{name} is {value}; want 1 or more")
    if own and context > own:
        raise InputError(f"--context is {context}, but the model was made for {own} positions; lower it")
    return context, Capacity(given.rows, given.slots, row_tokens, completion)


def make_service(given: argparse.Namespace) -> Service:
    """The checkpoint and its service. Raises InputError."""
    try:
        arguments = json.loads(given.chat_template_arguments)
    except ValueError as e:
        raise InputError(f"--chat_template_arguments is not JSON ({e})") from None
    if not isinstance(arguments, dict):
        raise InputError("--chat_template_arguments is no JSON object")
    key = api_key(given)
    checkpoint = locate.locate(given.checkpoint, "--checkpoint")
    config = hf_config.load_config(checkpoint, given.dtype)
    context, capacity = sizes(given, checkpoint)
    chat = template.load_chat(checkpoint, False, arguments, given.chat_template)
    run_lib.check_vocabulary(chat, config, checkpoint)
    device = jax.local_devices()[:1]
    mesh = jax.make_mesh((1,) * 4, sharding.MESH_AXES, (AxisType.Auto,) * 4, devices=device)
    places = sharding.param_shardings(decoder.abstract_params(config), mesh, sharding.SAMPLER)
    params = hf.load_params(checkpoint, config, config.dtype, places)
    if device[0].platform == "cpu":
        params = decoder.by_layer(config, params)
    embedded = checkpoint == locate.EMBEDDED
    limits = Limits(
        model=given.model or ("embedded" if embedded else given.checkpoint.rstrip("/")),
        context=context,
        prompt_tokens=min(context - 1, capacity.row_tokens + 1),  # the last one is the completion's
        completion_tokens=capacity.completion_tokens,
        vocabulary=config.vocab_size,
        choices=min(MAX_CHOICES, given.queue + given.rows * given.slots),
    )

    def engine_of(deliver):
        return Engine(config, params, capacity, chat.stop_ids, deliver, given.queue)

    fingerprint = hf.checkpoint_fingerprint(checkpoint)
    try:
        return Service(engine_of, chat, limits, Options(key, given.max_body_bytes), fingerprint)
    except jax.errors.JaxRuntimeError as e:
        if "RESOURCE_EXHAUSTED" not in str(e):
            raise
        tokens = capacity.rows * (capacity.row_tokens + capacity.slots * capacity.completion_tokens)
        raise InputError(
            f"keys and values of {tokens:,} tokens do not fit the memory: lower --rows, --slots, --context, "
            "--row_tokens or --completion_tokens"
        ) from None


async def serve(
    service: Service, given: argparse.Namespace, started: Callable[[server.Server, str], None]
) -> None:
    """Serve until a signal comes, or until the server that `started` is given, with its URL, is told to
    end."""
    listening = server.listen(given.host, given.port)
    host, port = listening.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    service.open()
    http = server.make_server(service.app, given.grace)
    started(http, f"http://{host}:{port}/v1")
    await http.serve([listening])
    service.close()


def run(given: argparse.Namespace) -> None:
    """Serve in this thread until a signal comes. Raises InputError, also when the engine has failed."""
    logging.getLogger("asyncio").setLevel(
        logging.ERROR
    )  # it warns of clients that leave while they are sent to
    run_lib.use_compilation_cache()
    service = make_service(given)

    def started(_, url: str) -> None:
        key = "with an API key" if service.options.api_key else "without an API key"
        size = service.limits.context
        print(f"serving {service.limits.model} at {url}, {key}; {size} tokens of context", flush=True)

    asyncio.run(serve(service, given, started))
    counts = service.engine.counts
    print(f"ended: {counts.samples} completions, {counts.generated} tokens", flush=True)
    if service.engine.failed:
        raise InputError(f"the engine has failed: {service.engine.failed}")


class Served:
    """A server in a thread of its own, at `url`; use it in a `with`, or end it with `stop`."""

    def __init__(self, given: argparse.Namespace):
        """Returns once the server listens. Raises InputError."""
        run_lib.use_compilation_cache()
        service = make_service(given)
        self._begun = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(service, given), daemon=True)
        self._thread.start()
        self._begun.wait()
        if self._error:
            raise self._error
        self.model: str = service.limits.model  # its name in requests

    def _run(self, service: Service, given: argparse.Namespace) -> None:
        def started(http: server.Server, url: str) -> None:
            self._http, self.url = http, url
            self._begun.set()

        try:
            asyncio.run(serve(service, given, started))
        except BaseException as e:  # it is raised where the server was started
            self._error = e
        finally:
            self._begun.set()

    def stop(self) -> None:
        """End the server; open requests are finished."""
        self._http.should_exit = True
        self._thread.join()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Served({self.model!r}, url={self.url!r})"


def with_options(checkpoint: str, values: dict[str, Any]) -> argparse.Namespace:
    """The program's options with other values for some, by their names without dashes. Raises InputError."""
    given = options().parse_args(["--checkpoint", str(checkpoint)])
    for name, value in values.items():
        if not hasattr(given, name):
            raise InputError(f"serve has no option {name!r}; it has {', '.join(sorted(vars(given)))}")
        kind = type(getattr(given, name))
        if kind in (int, float) and (not isinstance(value, (int, kind)) or isinstance(value, bool)):
            raise InputError(f"{name} is {value!r}; serve wants a number for it, as {getattr(given, name)}")
        setattr(given, name, json.dumps(value) if isinstance(value, dict) else value)
    return given
