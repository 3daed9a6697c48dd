"""The server beside the bare sampler: `python experiments/benchmarks/serve.py`

Clients in a process of their own each send a completion of token ids after the other, `--requests` of them,
with prompts that share nothing, and read it whole or streamed. All completions have `--completion` tokens.

sampler        rollouts.actor.Actor with the same prompts, all at once: no HTTP, no text; its fastest shape of
               those in SHAPES
ours           `python -m pivotrl_jax.serve`, with the sampler's shape of rows and decode slots
transformers   `transformers serve`, with `--peer=PYTHON`, a Python that has it and torch

Sides take turns, `--runs` times after a round that is not counted; numbers are medians of tokens per second.
Latencies are seconds to the first event of a stream. `--memory=5000` instead sends that many short chats with
`n`, tools and streams to our server, and reports its resident memory along the way. Prints one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import peers

from pivotrl_jax.checkpoints import locate
from pivotrl_jax.rollouts.actor import Actor, BatchShape, Request

SHAPES = ((64, 1), (16, 4))  # rows, decode slots of a row
CHUNK = 128


# ---- clients


async def ask(port: int, path: str, body: dict) -> tuple[float, bytes]:
    """(seconds to the first byte of the reply's body, the body), over a connection of its own."""
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw)
    status = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1]
    first = await reader.read(1)
    seconds = time.perf_counter() - began
    body = first + await reader.read(-1)
    writer.close()
    if status != b"200":
        raise ValueError(f"{path}: {status} {body[:300]}")
    return seconds, body


async def crowd(port: int, bodies: list[tuple[str, dict]], clients: int) -> list[tuple[float, bytes]]:
    """The answers of all requests, with that many under way at a time."""
    waiting = iter(bodies)
    answers = []

    async def client():
        for path, body in waiting:
            answers.append(await ask(port, path, body))

    await asyncio.gather(*(client() for _ in range(clients)))
    return answers


def clients(receive, send, port: int, bodies_of, count: int, *sizes) -> None:
    """A side: seconds and latencies of one round of requests."""
    while True:
        bodies = bodies_of(receive(), *sizes)
        began = time.perf_counter()
        answers = asyncio.run(crowd(port, bodies, count))
        seconds = time.perf_counter() - began
        first = statistics.median(first for first, _ in answers)
        send({"seconds": seconds, "first": first, "tokens": sum(tokens_of(body) for _, body in answers)})


def tokens_of(body: bytes) -> int:
    """The completion tokens that a reply, whole or streamed, says it has."""
    return int(re.findall(rb'"completion_tokens":\s*(\d+)', body)[-1])


def our_bodies(number: int, requests: int, prompt: int, completion: int, stream: bool) -> list:
    common = {"model": "embedded", "max_tokens": completion, "ignore_eos": True, "stream": stream}
    common |= {"stream_options": {"include_usage": True}} if stream else {}
    prompts = fresh_prompts(2 * number + stream, requests, prompt)  # both sides ask the same server
    return [("/v1/completions", {**common, "prompt": ids, "seed": i}) for i, ids in enumerate(prompts)]


def text_bodies(number: int, requests: int, prompt: int, completion: int, stream: bool) -> list:
    """For `transformers serve`, which takes no token ids: texts of about as many tokens."""
    tokenizer = peers.embedded_chat().tokenizer
    generation = json.dumps({"max_new_tokens": completion, "min_new_tokens": completion, "do_sample": True})
    common = {"model": str(locate.EMBEDDED), "stream": stream, "generation_config": generation}
    common |= {"max_tokens": completion}
    texts = [tokenizer.decode(ids) for ids in fresh_prompts(number, requests, prompt)]
    return [("/v1/completions", {**common, "prompt": text}) for text in texts]


def fresh_prompts(number: int, count: int, length: int) -> list[list[int]]:
    """Prompts of a round, which share nothing with each other or with other rounds."""
    rng = random.Random(number)
    return [[rng.randrange(4, 1600) for _ in range(length)] for _ in range(count)]


# ---- servers and the sampler


@contextlib.contextmanager
def our_server(*flags: str):
    """(its port, its process)."""
    command = [sys.executable, "-m", "pivotrl_jax.serve", "--checkpoint=embedded", "--port=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    peers.say(line.strip())
    try:
        yield int(re.search(r":(\d+)/v1", line)[1]), process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def peers_server(python: str):
    """The port of `transformers serve`."""
    port = 8917
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(Path(python).with_name("transformers")), "serve", f"--port={port}", "--device=cpu"]
    command += ["--dtype=float32", "--continuous-batching"]
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr, env=environment)
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if process.poll() is not None:
                raise RuntimeError("transformers serve has ended")
            time.sleep(0.5)
        yield port
    finally:
        process.terminate()
        process.wait()


def bare(receive, send, shape: tuple[int, int], requests: int, prompt: int, completion: int) -> None:
    """The sampler's side: all requests of a round in one call of the actor, `rows` x `slots` at a time."""
    rows, slots = shape
    mesh = peers.our_mesh(1)
    config, params = peers.load_policy(mesh)
    batch = BatchShape(rows, slots, slots)
    lengths = (prompt * slots,)
    actor = Actor(
        config,
        peers.sampling_of(completion),
        mesh,
        shape=batch,
        row_lengths=lengths,
        attention_chunk=CHUNK,
    )
    params = actor.place(params)
    while True:
        prompts = fresh_prompts(number := receive(), requests, prompt)
        began = time.perf_counter()
        asked = [Request(str(i), ids, str(i), 1) for i, ids in enumerate(prompts)]
        drawn = actor.act(params, asked, jax.random.key(number))
        seconds = time.perf_counter() - began
        send({"seconds": seconds, "tokens": sum(len(c.token_ids) for one in drawn for c in one)})


def speed(options) -> dict:
    """Tokens per second and latencies, by number of clients."""
    page = {}
    for count in options.clients:
        requests = count * options.rounds
        sizes = requests, options.prompt, options.completion
        shapes = [(r, s) for r, s in SHAPES if r * s == 64] if count > 8 else [(count, 1)]
        rows, slots = shapes[0]
        with contextlib.ExitStack() as stack:
            flags = [f"--rows={rows}", f"--slots={slots}", f"--row_tokens={options.prompt * slots}"]
            flags += [f"--context={options.prompt + options.completion}"]
            flags += [f"--completion_tokens={options.completion}"]
            port, _ = stack.enter_context(our_server(*flags))
            sides = {f"sampler {r} x {s}": peers.Side(bare, (r, s), *sizes) for r, s in shapes}
            sides["ours"] = peers.Side(clients, port, our_bodies, count, *sizes, False)
            sides["ours, streamed"] = peers.Side(clients, port, our_bodies, count, *sizes, True)
            if options.peer:
                peer = stack.enter_context(peers_server(options.peer))
                sides["transformers serve"] = peers.Side(clients, peer, text_bodies, count, *sizes, False)
            times = peers.take_turns(sides, options.runs)
            for side in sides.values():
                side.close()
        found = {name: peers.medians(t) for name, t in times.items()}
        rates = {name: f["tokens"] / f["seconds"] for name, f in found.items()}
        best = max(rate for name, rate in rates.items() if name.startswith("sampler"))
        page[count] = {
            "tokens_per_second": rates,
            "share_of_sampler": rates["ours"] / best,
            "seconds_to_first": {name: f["first"] for name, f in found.items() if "first" in f},
        }
    return page


# ---- memory


def memory(options) -> dict:
    """Resident MiB of our server after the first requests and along the way."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    resident = []
    with our_server("--rows=4", "--slots=4", "--context=512", "--completion_tokens=32") as (port, process):

        def mib() -> float:
            status = Path(f"/proc/{process.pid}/status").read_text()
            return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

        def body(i: int) -> tuple[str, dict]:
            message = {"role": "user", "content": f"Hello number {i}, what is {i} + {i * 7}?"}
            common = {"model": "embedded", "messages": [message], "max_tokens": 8, "stream": i % 2 == 0}
            return "/v1/chat/completions", {**common, "n": 1 + i % 3, "tools": [tool] * (i % 4 == 0)}

        step = max(options.memory // 10, 1)
        for first in range(0, options.memory, step):
            asyncio.run(crowd(port, [body(i) for i in range(first, min(first + step, options.memory))], 16))
            resident.append(mib())
            peers.say(first + step, resident[-1])
    return {"requests": options.memory, "resident_mib": resident}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=2, help="requests per client and round")
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer", default="", help="a Python with transformers[serving] and torch")
    parser.add_argument("--memory", type=int, default=0)
    options = parser.parse_args()
    page = peers.facts("serve") | {name: getattr(options, name) for name in ("prompt", "completion", "runs")}
    peers.report(page | (memory(options) if options.memory else {"clients": speed(options)}))


if __name__ == "__main__":
    main()
