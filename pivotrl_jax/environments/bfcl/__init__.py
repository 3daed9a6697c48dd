"""BFCL's tasks and backends, out of the `bfcl_eval` package, and its ground truth as demonstrations.

tasks.py finds and reads them; demonstrations.py answers single-turn rows.
"""

from typing import Any

from pivotrl_jax.environments.base import Environment
from pivotrl_jax.environments.bfcl import demonstrations, tasks
from pivotrl_jax.environments.episode import replay
from pivotrl_jax.environments.tasks import ScriptedTask
from pivotrl_jax.records import Trajectory


class Bfcl(Environment):
    """BFCL's categories. Multi-turn tasks are played; single-turn rows are demonstrations only.

    Held out is a share of the scenarios, which the four multi-turn categories have in common.
    """

    name, prefixes, backends = "bfcl", ("multi_turn_",), tasks.BACKENDS

    def train_tasks(self, data: Any, seed: int) -> list[ScriptedTask | Trajectory]:
        found, limit = [], data.limit or None
        for category in data.categories:
            if category in tasks.MULTI_TURN:
                found += tasks.tasks(category)[:limit]
            else:
                found += demonstrations.single_turn([category], limit)
        return found[:limit]

    def find_task(self, task_id: str) -> ScriptedTask:
        return tasks.find_task(task_id)

    def demonstrate(self, task: ScriptedTask, data: Any = None) -> Trajectory:
        return replay(task, self.name)

    def left_out(self, data: Any) -> dict[str, str]:
        return demonstrations.excluded([c for c in data.categories if c not in tasks.MULTI_TURN])


environment = Bfcl()
