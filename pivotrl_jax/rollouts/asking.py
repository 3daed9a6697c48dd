"""Sends requests to a served model until they are answered: what passes is waited for, what stays stops.

A request that fails in passing is sent again after a pause that doubles, or after the server's Retry-After.
Failures in a row, over all requests, slow all of them down and in the end stop the run.
"""

import asyncio
import itertools
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tqdm import tqdm

from pivotrl_jax import endpoints
from pivotrl_jax.endpoints import Endpoint, Failure, Refused
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts import replies
from pivotrl_jax.rollouts.replies import CHAT

T = TypeVar("T")
TOLD = 3  # failures in a row, from which on they are told
STEP = 1.0  # seconds; a waiting request looks this often whether the server answers again


class Patience:
    """Failures in a row, over all requests of a server. A success ends the row.

    While a server is down, all open requests fail at once. They count as one failure: only a request sent
    after the last counted failure counts again.
    """

    def __init__(self, name: str, give_up_after: int):
        self._name, self._give_up_after = name, give_up_after
        self._in_a_row, self._last, self._until = 0, -math.inf, 0.0
        self.total = 0  # failed requests

    async def wait(self) -> None:
        """Until requests may be sent."""
        while (seconds := self._until - time.monotonic()) > 0:
            await asyncio.sleep(min(seconds, STEP))

    def succeeded(self) -> None:
        self._in_a_row, self._until = 0, 0.0

    def failed(self, failure: Failure, sent: float) -> None:
        """Count a failure of a request sent at a time of `time.monotonic`. Raises InputError when it was one
        too many."""
        self.total += 1
        if sent < self._last:
            return
        self._in_a_row, self._last = self._in_a_row + 1, time.monotonic()
        if self._in_a_row == TOLD:
            tqdm.write(
                f"{self._name} failed {TOLD} times in a row ({failure.why}); it is asked again, "
                f"{self._give_up_after} times in all",
                file=sys.stderr,
            )
        if self._in_a_row >= self._give_up_after:
            raise InputError(
                f"{self._name} failed {self._in_a_row} times in a row, the last time with {failure.why}"
            )
        if self._in_a_row > 1 or failure.wait:
            self._until = self._last + max(failure.wait, endpoints.backoff(self._in_a_row - 1))


class Asker:
    """Asks one endpoint; counts what it costs, and remembers which optional fields it refuses."""

    def __init__(self, endpoint: Endpoint, retries: int, give_up_after: int):
        self.endpoint, self._retries, self._patience = (
            endpoint,
            retries,
            Patience(endpoint.name, give_up_after),
        )
        self._left_out: set[str] = set()
        self._renamed: dict[str, str] = {}
        self.prompt_tokens = self.completion_tokens = 0

    @property
    def failures(self) -> int:
        """How many requests failed and were sent again."""
        return self._patience.total

    async def ask(
        self, client: Any, mode: str, body: dict, what: str, read: Callable[[dict], T | Failure]
    ) -> T:
        """What `read` makes of the reply to a request; a Failure of it is a failure of the request.

        `what` names the request in sentences. Raises Refused when the server will not answer, and InputError
        after too many failures. To be busy is none of this request: while others get through, it waits.
        """
        failed = 0
        for attempt in itertools.count():
            await self._patience.wait()
            sent = time.monotonic()
            found = await self._exchange(client, mode, body)
            found = found if isinstance(found, Failure) else read(found)
            if not isinstance(found, Failure):
                self._patience.succeeded()
                return found
            self._patience.failed(found, sent)
            failed += not found.busy
            if failed > self._retries:
                raise InputError(
                    f"{self.endpoint.name} did not answer {what} in {failed} tries, the last time with "
                    f"{found.why}"
                )
            await asyncio.sleep(max(found.wait, endpoints.backoff(attempt)))

    async def _exchange(self, client: Any, mode: str, body: dict) -> dict | Failure:
        """Send a request once; without the optional fields that the server refuses. Raises Refused."""
        while True:
            fields = {self._renamed.get(k, k): v for k, v in body.items() if k not in self._left_out}
            try:
                async with asyncio.timeout(self.endpoint.timeout):  # also of a reply that drips
                    value = endpoints.json_object(await self._post(client, mode, fields))
                break
            except Exception as e:  # `failure` raises what is not the client's
                try:
                    return self.endpoint.failure(e)
                except Refused as refused:
                    if not self._adapt(body, fields, refused):
                        raise
        if isinstance(value, dict) and isinstance(value.get("usage"), dict):
            prompt, completion = (value["usage"].get(f"{kind}_tokens") for kind in ("prompt", "completion"))
            self.prompt_tokens += prompt if isinstance(prompt, int) else 0
            self.completion_tokens += completion if isinstance(completion, int) else 0
        return value

    async def _post(self, client: Any, mode: str, fields: dict) -> bytes:
        # everything goes through extra_body, which the client leaves as it is
        if mode == CHAT:
            create, empty = client.chat.completions.with_raw_response.create, {"messages": []}
        else:
            create, empty = client.completions.with_raw_response.create, {"prompt": ""}
        return (await create(model=self.endpoint.model, **empty, extra_body=fields)).content

    def _adapt(self, body: dict, sent: dict, refused: Refused) -> bool:
        """Whether to send a refused request again: the field that the server's message names is left out from
        now on, or gets another name."""
        if refused.status not in (400, 422):
            return False
        if "max_completion_tokens" in refused.message and "max_tokens" in sent:
            self._renamed["max_tokens"] = "max_completion_tokens"
            return True
        named = [name for name in replies.optional(body) if name in refused.message]
        if new := [name for name in named if name not in self._left_out]:
            print(f"{self.endpoint.name} takes no {', '.join(new)}: left out")
            self._left_out.update(new)
        return any(name in sent for name in named)  # another request may have found out meanwhile
