"""The engine: samples of any requests, decoded together (continuous batching) with shared prompt prefixes.

A thread owns the device. Again and again it

1. gives waiting samples, first come first served, a decode slot in the row that holds most of their prompt,
2. computes a few chunks of prompt tokens that no row holds yet,
3. takes a few decode steps for all samples that are ready, and hands their tokens out.

A sample's tokens depend on its prompt, settings, seed and index alone: token t of sample i of a seed is drawn
with the key `fold_in(fold_in(key(seed), i), t)`, whatever else is decoded beside it.

Left out: several processes, preemption (a sample that has begun is finished or cancelled), and prefixes of
completions (the next turn of a conversation computes the reply before it once more).
"""

import collections
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from pivotrl_jax.models import decoder
from pivotrl_jax.models.config import ModelConfig
from pivotrl_jax.serve import chunks as chunks_lib
from pivotrl_jax.serve import programs
from pivotrl_jax.serve.prefixes import Path, Row
from pivotrl_jax.serve.programs import Capacity, Slots, View

FEW = 4  # decode steps at a time while a client reads along or waits
CALL = 0.15  # seconds that decode steps may take at a time while nobody does
WIDTHS = (4, 256)  # views of a row grow by this factor, from this size on


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a sample is drawn. `top_k` = 0, `top_p` = 1 and `min_p` = 0 do not truncate the distribution."""

    max_tokens: int
    temperature: float = 1.0  # 0: the most likely token
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0  # 64 bits
    ignore_stop: bool = False
    top: bool = False  # also report the programs.TOP most likely tokens
    soon: bool = False  # hand tokens out a few at a time

    @property
    def restricted(self) -> bool:
        return self.top_p < 1 or self.top_k > 0 or self.min_p > 0


@dataclasses.dataclass(frozen=True)
class Piece:
    """The next tokens of a sample."""

    tokens: list[int]
    log_probs: list[float]  # under the distribution that they were sampled from
    model_log_probs: list[float]  # under the model: temperature 1, not truncated
    top: list[list[tuple[int, float]]]  # per token, the most likely ones under the model, if asked for
    finish: str | None = None  # "stop": a stop token is the last one; "length"; "error"; None: more will come


@dataclasses.dataclass(eq=False)
class Sample:
    """One completion to draw. `index` tells the samples of a seed apart."""

    prompt: Sequence[int]
    settings: Settings
    index: int = 0
    cancelled: bool = False
    cached: int = 0  # prompt tokens that were not computed; the engine's answer


@dataclasses.dataclass(eq=False)
class _Running:
    """A sample in a decode slot."""

    sample: Sample
    ids: np.ndarray
    row: int
    slot: int
    path: Path
    computed: int  # tokens of the prompt, but for the last, whose keys and values are in the row
    ready: bool = False  # decoding


@dataclasses.dataclass
class Counts:
    """What the engine has done since it started."""

    samples: int = 0  # that ended, cancelled ones included
    prefilled: int = 0  # prompt tokens computed
    cached: int = 0  # prompt tokens that were in a row already
    generated: int = 0
    steps: int = 0


class Full(Exception):
    """Too many samples wait. `seconds` is a guess at when there will be room."""

    def __init__(self, seconds: float):
        super().__init__(f"too many samples wait; try again in {seconds:.0f} s")
        self.seconds = seconds


class Failed(Exception):
    """The engine cannot decode any more."""


class Engine:
    """Call `start`, `submit` samples, and `stop`. The parameters may be `decoder.by_layer`.

    `deliver` is called in the engine's thread with the pieces of one round, [(sample, piece)], and must not
    block.
    """

    def __init__(
        self,
        config: ModelConfig,
        params,
        capacity: Capacity,
        stop_ids: Sequence[int],
        deliver: Callable[[list[tuple[Sample, Piece]]], None],
        max_waiting: int = 256,
    ):
        self.capacity, self.counts, self.failed = capacity, Counts(), ""
        self._config, self._params, self._deliver, self._max_waiting = config, params, deliver, max_waiting
        self._stops = np.asarray(stop_ids, np.int32)
        self._cache = programs.empty_cache(config, capacity, decoder.is_by_layer(config, params))
        self._rows = [Row(capacity.row_tokens) for _ in range(capacity.rows)]
        self._slots = Slots.idle(capacity.rows, capacity.slots)
        self._mask = np.zeros((capacity.rows, capacity.slots, capacity.row_tokens), bool)
        self._running: dict[tuple[int, int], _Running] = {}
        self._prefill: collections.deque[_Running] = collections.deque()  # those that are not ready
        self._waiting: collections.deque[Sample] = collections.deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._seconds = 1.0  # of recent samples, a moving mean
        self._step_seconds = CALL / FEW  # of a decode step
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # ---- any thread

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the current round. Samples that have not ended get no more pieces."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, samples: Sequence[Sample]) -> None:
        """Queue samples, all or none. Raises Full, and Failed."""
        with self._wake:
            self.check_room(len(samples))
            self._waiting.extend(samples)
            self._wake.notify()

    def check_room(self, samples: int) -> None:
        """Raises Full when so many more samples would be too many, and Failed."""
        if self.failed:
            raise Failed
        size = self.capacity.rows * self.capacity.slots
        if len(self._waiting) + samples > self._max_waiting + size - len(self._running):
            raise Full(max(1.0, self._seconds * (1 + len(self._waiting) / size)))

    def cancel(self, samples: Sequence[Sample]) -> None:
        """End samples early. Their slots become free before the next round."""
        with self._wake:
            for sample in samples:
                sample.cancelled = True
            self._wake.notify()

    def waiting(self) -> int:
        return len(self._waiting)

    def running(self) -> int:
        return len(self._running)

    # ---- the engine's thread

    def _run(self) -> None:
        try:
            while self._pause():
                self._round()
        except Exception as e:  # nothing can be decoded any more: say so to everybody, now and later
            logging.exception("the engine has stopped")
            with self._wake:
                self.failed = f"{type(e).__name__}: {e}"
                lost = [r.sample for r in self._running.values()] + list(self._waiting)
                self._waiting.clear()
            self._deliver([(sample, Piece([], [], [], [], "error")) for sample in lost])

    def _pause(self) -> bool:
        """Wait for work. False when the engine is to stop."""
        with self._wake:
            while not (self._stopping or self._waiting or self._running):
                self._wake.wait()
            return not self._stopping

    def _round(self) -> None:
        with self._wake:
            for sample in [s for s in self._waiting if s.cancelled]:
                self._waiting.remove(sample)
                self.counts.samples += 1
        for running in [r for r in self._running.values() if r.sample.cancelled and r.ready]:
            self._leave(running)
        self._admit()
        # the more samples wait for their prompt, the longer may those wait that decode
        decoding = len(self._running) - len(self._prefill)
        tokens = chunks_lib.PREFILL * (1 + len(self._prefill) // max(decoding, 1))
        while self._prefill and tokens > 0:
            tokens -= self._extend()
        self._decode()

    def _admit(self) -> None:
        """Give waiting samples a row and a decode slot, in order, as long as there is one."""
        while self._waiting:
            sample = self._waiting[0]
            running = self._place(sample)
            if running is None:
                return
            with self._wake:
                self._waiting.popleft()
                self._running[running.row, running.slot] = running
            sample.cached = running.path.cached
            self.counts.cached += running.path.cached
            self._prefill.append(running)

    def _place(self, sample: Sample) -> _Running | None:
        ids = np.asarray(sample.prompt, np.int32)
        prefix = ids[:-1]  # the last token is the first that the sample computes
        busy = [sum(r == row for r, _ in self._running) for row in range(self.capacity.rows)]
        free = [row for row in range(self.capacity.rows) if busy[row] < self.capacity.slots]

        def worth(row: int):  # a few shared tokens are no reason to crowd a row
            return (
                -(self._rows[row].shared(prefix) // chunks_lib.CHUNKS[0]),
                busy[row],
                self._rows[row].held(),
            )

        for row in sorted(free, key=worth):
            path = self._rows[row].take(prefix)
            if path is not None:
                slot = next(j for j in range(self.capacity.slots) if (row, j) not in self._running)
                return _Running(sample, ids, row, slot, path, path.cached)
        return None

    def _leave(self, running: _Running) -> None:
        self._rows[running.row].release(running.path)
        self._slots.busy[running.row, running.slot] = False
        self._mask[running.row, running.slot] = False
        with self._wake:
            del self._running[running.row, running.slot]
        self.counts.samples += 1

    # ---- prompts

    def _extend(self) -> int:
        """Compute one chunk of prompts in one row, or one each in several, and let the samples decode whose
        prompt is complete. Returns the tokens computed, padding included.

        Prompts of a row are computed in order, so that a prompt that shares another's tokens comes after it.
        """
        size, chunks = chunks_lib.next_chunks(self._prefill)
        parts = [part for chunk in chunks for part in chunk.parts]
        if tokens := sum(part.count for part in parts):
            width = self._width(max(int(p.prompt.path.slots.max(initial=0)) for p in parts) + 1)
            call = chunks_lib.arrays(chunks, size, width, self.capacity.row_tokens)
            self._cache = programs.extend(self._config, self._params, self._cache, *call)
            self.counts.prefilled += tokens
        for running, count in parts:
            running.computed += count
            if running.computed == len(running.path.slots):
                self._prefill.remove(running)
                self._begin(running)
        return size * len(chunks)

    def _begin(self, running: _Running) -> None:
        """The prompt is in the row: from the next round on the sample decodes."""
        at, settings, slots = (running.row, running.slot), running.sample.settings, self._slots
        slots.busy[at], slots.token[at], slots.age[at] = True, running.ids[-1], 0
        slots.position[at], slots.limit[at] = len(running.ids) - 1, settings.max_tokens
        slots.ignore_stop[at], slots.index[at] = settings.ignore_stop, running.sample.index
        slots.seed[at] = divmod(settings.seed % 2**64, 2**32)
        for name in ("temperature", "top_p", "top_k", "min_p"):
            getattr(slots, name)[at] = getattr(settings, name)
        self._mask[at][running.path.slots] = True
        running.ready = True

    # ---- completions

    def _width(self, tokens: int) -> int:
        """The size of the smallest view that holds so many slots of a row."""
        return _view(tokens, self.capacity.row_tokens)

    def _decode(self) -> None:
        ready = [r for r in self._running.values() if r.ready]
        if not ready:
            return
        began = time.perf_counter()
        settings = [r.sample.settings for r in ready]
        hurry = self._waiting or self._prefill or any(s.soon for s in settings)
        left = max(int(self._slots.limit[r.row, r.slot] - self._slots.age[r.row, r.slot]) for r in ready)
        most = FEW if hurry else int(np.clip(CALL / self._step_seconds, FEW, programs.STEPS))
        count = min(most, left)
        rows = {r.row for r in ready}
        size = self.capacity
        first, R = (rows.pop(), 1) if len(rows) == 1 else (0, size.rows)
        J = 1 if all(r.slot == 0 for r in ready) else size.slots
        oldest = max(int(self._slots.age[r.row, r.slot]) for r in ready)
        view = View(
            rows=R,
            slots=J,
            row_tokens=self._width(max(int(r.path.slots.max(initial=0)) for r in ready) + 1),
            columns=_view(oldest + count, size.completion_tokens),
            restricted=any(s.restricted for s in settings),
            top=any(s.top for s in settings),
        )
        part = slice(first, first + R), slice(J)
        slots = jax.tree.map(lambda x: x[part], self._slots)
        mask = self._mask[part][..., : view.row_tokens]
        call = np.asarray([first, count], np.int32)
        self._cache, slots, out = programs.decode(
            self._config, view, self._params, self._cache, slots, mask, self._stops, call
        )
        slots, out = jax.device_get((slots, out))
        self._hand_out(ready, first, slots, out, time.perf_counter() - began)

    def _hand_out(self, ready: list[_Running], first: int, slots: Slots, out, seconds: float) -> None:
        """Take over how far the samples are, and deliver their new tokens."""
        pieces, most = [], 0
        for running in ready:
            at, there = (running.row, running.slot), (running.row - first, running.slot)
            count = int(slots.age[there] - self._slots.age[at])
            most = max(most, count)
            self._slots.age[at], self._slots.token[at] = slots.age[there], slots.token[there]
            tokens, *log_probs = (
                x[:count, *there].tolist() for x in (out.token, out.log_prob, out.model_log_prob)
            )
            top = []
            if running.sample.settings.top:
                ids, values = (x[:count, *there].tolist() for x in (out.top_token, out.top_log_prob))
                top = [list(zip(*pair)) for pair in zip(ids, values)]
            finish = None
            if not slots.busy[there]:
                stopped = tokens[-1] in self._stops and not running.sample.settings.ignore_stop
                finish = "stop" if stopped else "length"
                self._seconds += 0.05 * (seconds * slots.age[there] / max(count, 1) - self._seconds)
                self._leave(running)
            pieces.append((running.sample, Piece(tokens, *log_probs, top, finish)))
            self.counts.generated += count
        self.counts.steps += most
        # rises slowly, since a call's time may hold a compilation or the prompts before it
        self._step_seconds = min(seconds / max(most, 1), 1.5 * self._step_seconds)
        self._deliver(pieces)


def _view(needed: int, whole: int) -> int:
    """The smallest of a few sizes up to `whole` that is not below `needed`: one program each."""
    factor, size = WIDTHS
    while size < needed:
        size *= factor
    return min(size, whole)
