"""The contract of a verifier, and all that you need to read to write one. A complete example:

    # my_pkg/checks.py
    from pivotrl_jax.records import Action, Candidate, Verdict
    from pivotrl_jax.verifiers.base import Verifier
    from pivotrl_jax.verifiers.common import demonstrated_calls, problem, text_verdict

    def verify(candidate: Candidate, action: Action) -> Verdict:
        want = [call.name for call in demonstrated_calls(candidate)]
        rejected = problem(action)  # unparseable output, arguments that are not a JSON object
        if rejected is not None:
            return rejected
        if not want:  # the demonstration only talks
            return text_verdict(action)
        got = [call.name for call in action.calls]
        return Verdict(1.0, "ok") if got == want else Verdict(0.0, "names", f"called {got}, want {want}")

    same_names = Verifier("same_names", version="1", verify=verify)

Name it in a config (`config.data.verifier = "my_pkg.checks:same_names"`), on the command line
(`python -m pivotrl_jax.verify --verifier=my_pkg.checks:same_names < cases.jsonl`), or as an entry point of
your package, which rows of data may name as well:

    [project.entry-points."pivotrl_jax.verifiers"]
    same_names = "my_pkg.checks:same_names"

To add one to this package, list it in `VERIFIERS` of a module here, and the module in verifiers/__init__.py.
"""

import dataclasses
from collections.abc import Callable

from pivotrl_jax.records import Action, Candidate, Verdict
from pivotrl_jax.verifiers.cases import CaseReader, read_row


@dataclasses.dataclass(frozen=True)
class Verifier:
    """Decides whether an action is acceptable at a candidate's state.

    `verify` is a pure function. It never raises on an action, whatever the model wrote; it raises InputError
    for a `candidate.case` that it cannot use, which is the user's data. It must give 1 to the demonstration,
    and 0 to an empty and to a garbage action (`find_pivots --self_check`). Where its rules cannot decide, a
    verdict may carry a `question` for a judge.
    """

    name: str
    version: str  # change it whenever a verdict could change: every profile records it
    verify: Callable[[Candidate, Action], Verdict]
    # a line of the `verify` command's input -> (candidate, action), or InputError; None: `cases.read_row`
    read_case: CaseReader | None = None

    def __post_init__(self):
        if self.read_case is None:
            object.__setattr__(self, "read_case", read_row(self.name))

    @property
    def label(self) -> str:
        """`name/version`, as recorded in a profile."""
        return f"{self.name}/{self.version}"
