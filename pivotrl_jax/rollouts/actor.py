"""The actor: completions for any number of prompts with a bounded number of compiled programs."""

import contextlib
import dataclasses
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
from jax.sharding import Mesh

from pivotrl_jax.models import config as model_config
from pivotrl_jax.models import decoder, forest, sharding
from pivotrl_jax.records import Candidate
from pivotrl_jax.rollouts.sampler import Sampler
from pivotrl_jax.rollouts.sampling import Sampling


def number_of(name: str) -> int:
    """A stable 31-bit number for a name, to fold into a PRNG key: the same in every process and run."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF


@dataclasses.dataclass(frozen=True)
class Request:
    """A request for `samples` completions of a prompt.

    Prefixes that prompts of the same `tree` have in common are computed once.
    """

    name: str  # together with the sample's index, it determines the PRNG key
    prompt: Sequence[int]
    tree: str
    samples: int
    first: int = 0  # the first sample's index
    candidate: Candidate | None = None  # whose state the prompt is; what a chat endpoint is shown


@dataclasses.dataclass(frozen=True)
class Completion:
    """One completion: token ids as sampled, their log-probs, and whether it ended with a stop token."""

    token_ids: list[int]
    log_probs: list[float]  # under the distribution that they were sampled from
    model_log_probs: list[float]  # under the model: temperature 1, no top-k, top-p or min-p
    finished: bool
    # [n, L, A] and [prompt tokens, L, A], if the actor records them; all samples of a prompt share the latter
    experts: np.ndarray | None = dataclasses.field(default=None, compare=False)
    prompt_experts: np.ndarray | None = dataclasses.field(default=None, compare=False)
    served: dict | None = None  # as in `records.Rollout`: of an endpoint's completions


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """One call of a sampling program draws up to `rows` x `samples_per_row` samples."""

    rows: int
    samples_per_row: int
    decode_slots: int  # samples of a row that decode at the same time; the others wait for a slot


class Actor:
    """Draws completions for any number of requests with a bounded number of compiled programs.

    There is one program for each of `row_lengths`. A tree is put into the shortest row that holds its longest
    prompt.
    """

    def __init__(
        self,
        config: model_config.ModelConfig,
        sampling: Sampling,
        mesh: Mesh,
        *,
        shape: BatchShape,
        row_lengths: Sequence[int],
        attention_chunk: int,
        record_experts: bool = False,
    ):
        self.rows, self.samples_per_row = shape.rows, shape.samples_per_row
        self.row_lengths, self.sampling = sorted(row_lengths), sampling
        self._sampler = Sampler(config, sampling, shape.decode_slots, attention_chunk, mesh, record_experts)

    def place(self, params: decoder.Params) -> decoder.Params:
        """Parameters as the sampler reads them (`Sampler.place`)."""
        return self._sampler.place(params)

    def saved_in(self, file: Path) -> contextlib.AbstractContextManager:
        """Keep completions in `file` until the shard is written; only an endpoint's are worth it."""
        return contextlib.nullcontext()

    @property
    def spent(self) -> str:
        """What the completions cost so far; only an endpoint's are counted."""
        return ""

    def act(
        self,
        params: decoder.Params,
        requests: Sequence[Request],
        stream: jax.Array,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> list[list[Completion]]:
        """The completions of every request, in order.

        `params` are as `place` returns them; `stream` is a PRNG key; `on_batch` is called with the number of
        completions in each batch.

        Raises InputError for a prompt longer than the longest row.
        """
        trees: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            trees.setdefault(request.tree, []).append(i)
        groups: dict[int, list[list[forest.Piece]]] = {}
        for members in trees.values():
            longest = max(len(requests[i].prompt) for i in members)
            row_length = forest.round_up(longest, self.row_lengths)
            pieces = [forest.Piece(i, requests[i].prompt, samples=requests[i].samples) for i in members]
            groups.setdefault(row_length, []).append(pieces)
        completions: list[list[Completion]] = [[None] * request.samples for request in requests]
        for row_length, pieces in sorted(groups.items()):
            packed = forest.pack(pieces, row_length, self.samples_per_row, self.rows)
            self._draw(params, packed, requests, stream, completions, on_batch)
        return completions

    def _draw(self, params, packed: forest.Forest, requests, stream, completions, on_batch) -> None:
        rows = packed.tokens.shape[0]
        branch = np.full((rows, self.samples_per_row), -1, np.int32)
        numbers = np.zeros((rows, self.samples_per_row, 2), np.int32)
        counts = [0] * rows
        owner: dict[tuple[int, int], tuple[int, int]] = {}
        prompts: dict[int, np.ndarray] = {}  # request -> the experts of its prompt
        for placement in packed.placed:
            request = requests[placement.key]
            for sample in range(placement.first, placement.first + placement.samples):
                at = placement.row, counts[placement.row]
                branch[at], numbers[at] = (
                    placement.prompt_slot,
                    (number_of(request.name), request.first + sample),
                )
                owner[at] = placement.key, sample
                counts[placement.row] += 1
        for start in range(0, rows, self.rows):
            band = slice(start, start + self.rows)
            part = forest.Forest(
                packed.tokens[band], packed.position[band], packed.parent[band], packed.subtree_end[band], ()
            )
            out = self._sampler(params, part, branch[band], stream, numbers[band])
            count = 0
            for r in range(self.rows):
                for s in range(counts[start + r]):
                    n = int(out.length[r, s])
                    per_token = (out.tokens, out.log_probs, out.model_log_probs)
                    key, sample = owner[start + r, s]
                    experts = ()
                    if out.experts is not None:
                        if key not in prompts:
                            path = forest.path_to(part.subtree_end[r], branch[start + r, s])
                            prompts[key] = out.prefix_experts[r, path]
                        experts = out.experts[r, s, :n].copy(), prompts[key]  # a view would keep all of it
                    completion = Completion(
                        *(x[r, s, :n].tolist() for x in per_token), bool(out.finished[r, s]), *experts
                    )
                    completions[key][sample] = completion
                    count += 1
            on_batch(count)


def make_actor(
    run,
    shape,
    config: model_config.ModelConfig | None = None,
    record_experts: bool = False,
    sampling: Mapping[str, float] = MappingProxyType({}),
) -> Actor:
    """The actor of a run. `shape` is the batch shape of one of its config's sections, for example
    `config.profile.batch`. `config` is the model's; None means the reference policy's. `sampling`
    replaces fields of `config.sampling`."""
    return Actor(
        config or run.model_config,
        Sampling(**{**run.config.sampling.to_dict(), **sampling}, stop_ids=run.chat.stop_ids),
        run.mesh,
        shape=BatchShape(
            sharding.whole_rows(run.mesh, shape.rows), shape.samples_per_row, shape.decode_slots
        ),
        row_lengths=run.config.compute.row_lengths,
        attention_chunk=run.config.compute.attention_chunk,
        record_experts=record_experts,
    )
