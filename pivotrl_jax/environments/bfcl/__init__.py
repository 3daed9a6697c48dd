"""BFCL's tasks and backends, from the `bfcl_eval` package, and its ground truth as demonstrations.

tasks.py finds and reads them; demonstrations.py turns single-turn rows into demonstrations.
"""

import itertools
from typing import Any

from pivotrl_jax.environments.base import Environment
from pivotrl_jax.environments.bfcl import demonstrations, tasks
from pivotrl_jax.environments.episode import replay
from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.records import Trajectory


class Bfcl(Environment):
    """BFCL's categories. Multi-turn tasks are played; single-turn rows are demonstrations only.

    A share of the scenarios is held out; the four multi-turn categories have the same ones. `data.limit`
    takes rows of all categories in turn.
    """

    name, prefixes, backends = "bfcl", ("multi_turn_",), tasks.BACKENDS

    def train_tasks(self, data: Any, seed: int) -> list[ScriptedTask | Trajectory]:
        found, limit = [], data.limit or None
        for category in data.categories:
            if category in tasks.MULTI_TURN:
                found.append(tasks.tasks(category)[:limit])
            else:
                found.append(demonstrations.single_turn([category], limit))
        if limit is None:
            return list(itertools.chain(*found))
        # one of each category in turn, of other numbers: multi-turn rows of one number are one scenario
        count = len(found)
        spread = [sorted(enumerate(rows), key=lambda r: (r[0] - i) % count) for i, rows in enumerate(found)]
        items = (item for several in itertools.zip_longest(*spread) for item in several if item)
        return [row for _, row in itertools.islice(items, limit)]

    def find_task(self, task_id: str) -> ScriptedTask:
        return tasks.find_task(task_id)

    def demonstrate(self, task: ScriptedTask, data: Any = None) -> Trajectory:
        return replay(task, self.name)

    def left_out(self, data: Any) -> dict[str, str]:
        return demonstrations.excluded([c for c in data.categories if c not in tasks.MULTI_TURN])


environment = Bfcl()
