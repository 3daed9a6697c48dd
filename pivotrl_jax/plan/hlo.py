"""Collectives of a compiled program, read from its text: how many, and how many bytes they move.

A collective in a loop runs as often as the loop; XLA's own `cost_analysis` counts it once. The text is that
of `jax.jit(f).lower(...).compile().as_text()`, whose shapes are those of one device. XLA for CPU has no
bfloat16 collectives and writes float32 instead; a dump after the pass "spmd-partitioning" still has bfloat16.

Bytes are per device and per run of the program. The payload is the larger side of a collective: the result of
an all-gather, the argument of an all-reduce, a reduce-scatter, an all-to-all or a permutation. The wire bytes
are what one of n devices sends in a ring (Thakur et al. 2005, "Optimization of Collective Communication
Operations in MPICH"): payload x (n - 1) / n, twice that for an all-reduce, and the payload for a permutation.
"""

import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    count: float  # times it runs
    static_count: int  # times it is written in the program
    payload_bytes: float  # per device
    wire_bytes: float  # per device, sent

    def __add__(self, other):
        mine, its = dataclasses.astuple(self), dataclasses.astuple(other)
        return Collective(*(a + b for a, b in zip(mine, its)))

    def times(self, n: float) -> "Collective":
        return Collective(self.count * n, self.static_count, self.payload_bytes * n, self.wire_bytes * n)


Collectives = dict[str, Collective]  # kind -> all of that kind


def collectives(text: str, unknown_trips: float) -> Collectives:
    """Collectives of a compiled program by kind; kinds that do not occur are left out.

    unknown_trips: how often a loop runs if the text does not say, as for a decode loop. Of the branches of a
    conditional the one that sends most counts. Raises ValueError for text that is not a compiled program.
    """
    program = _parse(text, unknown_trips)
    return _cost(program, program.entry, {})


@dataclasses.dataclass(frozen=True)
class _Instruction:
    root: bool
    name: str
    shape: str
    op: str
    operands: str
    attributes: str  # without metadata and backend_config, which may quote anything
    backend: str  # metadata and backend_config


@dataclasses.dataclass(frozen=True)
class _Program:
    entry: str
    computations: dict[str, list[_Instruction]]
    begins: set[str]  # see `_begins`
    devices: int
    unknown_trips: float


# "%name (parameters) -> shape {" opens a computation, and "  ROOT %name = shape op(operands), attributes" is
# a line of it. Only the shape of a tuple contains spaces: "(f32[2]{0}, /*index=1*/ s32[]{:T(128)})".
_OPENING = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*-> .*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*?)\)(?:, (.*)|)$")
_QUOTING = re.compile(r"(?:^|, )(?=(?:metadata|backend_config)=)")


def _parse(text: str, unknown_trips: float) -> _Program:
    header = text.split("\n", 1)[0]
    counts = [int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", header)]
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        if opening := _OPENING.match(line):
            current = computations[opening[2]] = []
            entry = opening[2] if opening[1] else entry
        elif current is not None and (match := _LINE.match(line)):
            root, *fields, rest = match.groups()
            attributes, *backend = _QUOTING.split(rest or "", maxsplit=1)
            current.append(_Instruction(bool(root), *fields, attributes, "".join(backend)))
    if entry is None:
        raise ValueError(f"no ENTRY computation in a text that begins with {header[:80]!r}")
    return _Program(entry, computations, _begins(computations), math.prod(counts), unknown_trips)


def _cost(program: _Program, name: str, known: dict[str, Collectives]) -> Collectives:
    """Collectives of one computation and all that it calls; `known` has those counted so far."""
    if name not in known:
        total: Collectives = {}
        for i in program.computations[name]:
            if "chain_id=" not in i.attributes or name in program.begins:
                _add(total, _own(i, program.devices))
            if i.op == "while":
                for part in ("body", "condition"):
                    inside = _cost(program, _names(i, part)[0], known)
                    _add(total, {kind: c.times(_trips(program, i)) for kind, c in inside.items()})
            elif i.op == "conditional":
                branches = _names(i, "branch_computations|true_computation|false_computation")
                _add(total, max((_cost(program, b, known) for b in branches), key=_sent))
            elif not i.op.endswith(("-update", "-done")):  # these name the computation of their -start
                for callee in _names(i, "calls|to_apply|called_computations"):
                    _add(total, _scattered(callee, _cost(program, callee, known)))
        known[name] = total
    return known[name]


def _begins(computations: dict[str, list[_Instruction]]) -> set[str]:
    """Computations that begin an asynchronous collective.

    The TPU compiler writes one as a chain of fusions: the first begins it, others compute while it runs (also
    in inner loops), and the last ends it. Each of them contains the collective, marked with the number of the
    chain, so it is counted only where it begins.
    """

    def chains(names) -> set[str]:
        attributes = (i.attributes for n in names for i in computations[n])
        return {chain for text in attributes for chain in re.findall(r'chain_id="(\d+)"', text)}

    mark = 'custom_call_target="AsyncCollectiveStart"'
    begins = {
        n for n, instructions in computations.items() if any(mark in i.attributes for i in instructions)
    }
    if lost := chains(computations) - chains(begins):
        raise ValueError(f"asynchronous collectives of chains {sorted(lost)} begin nowhere")
    return begins


def _scattered(name: str, inside: Collectives) -> Collectives:
    """Counts the TPU compiler's fusion "all-reduce-scatter", an all-reduce and a slice of its result, as the
    reduce-scatter that it is."""
    if not name.startswith("all-reduce-scatter") or "all-reduce" not in inside:
        return inside
    whole = inside["all-reduce"]
    return {"reduce-scatter": dataclasses.replace(whole, wire_bytes=whole.wire_bytes / 2)}


def _add(total: Collectives, more: Collectives):
    for kind, c in more.items():
        total[kind] = total[kind] + c if kind in total else c


def _sent(counted: Collectives) -> float:
    return sum(c.wire_bytes for c in counted.values())


def _names(i: _Instruction, attribute: str) -> list[str]:
    """Computations that an attribute of an instruction names: `body=%a`, `branch_computations={%a, %b}`."""
    found = re.findall(rf"\b(?:{attribute})=(\{{[^}}]*\}}|%?[\w.\-]+)", i.attributes)
    return [name for value in found for name in re.findall(r"[\w.\-]+", value)]


def _trips(program: _Program, loop: _Instruction) -> float:
    """How often a `while` runs: by the compiler's note or, since the TPU compiler writes none, by its
    condition. The condition of a scan is `i < constant`, and i counts from 0."""
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.backend):
        return int(noted[1])
    condition = {i.name: i for i in program.computations[_names(loop, "condition")[0]]}
    test = next(i for i in condition.values() if i.root)
    bound = condition.get(test.operands.split("%")[-1])
    if test.op == "compare" and "direction=LT" in test.attributes and bound and bound.op == "constant":
        return int(bound.operands)
    return program.unknown_trips


def _own(i: _Instruction, devices: int) -> Collectives:
    """The collective that an instruction is, if it is one."""
    kind = i.op.removesuffix("-start").removeprefix("ragged-")
    if kind not in KINDS:
        return {}
    shape = i.shape
    if i.op.endswith("-start") and kind != "all-reduce":  # (given, returned, and more)
        shape = _elements(shape)[1]
    n = _group_size(i.attributes, devices)
    payload = _bytes(shape) * (n if kind == "reduce-scatter" else 1)
    rounds = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1}
    return {kind: Collective(1, 1, payload, payload * rounds.get(kind, (n - 1) / n))}


def _elements(shape: str) -> list[str]:
    """The shapes in a tuple's shape."""
    parts, depth = [""], 0
    for c in shape[1:-1]:
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _bytes(shape: str) -> float:
    """Bytes of a shape or a tuple of them, without the padding of a layout."""
    total = 0.0
    for dtype, dims in re.findall(r"\b([a-z]\w*)\[([\d,<=]*)\]", shape):
        width = re.search(r"\d+", dtype)  # bf16, f8e4m3fn, s32; a token has none
        bits = 8 if dtype == "pred" else int(width[0]) if width else 0
        total += bits / 8 * math.prod(int(n.lstrip("<=")) for n in dims.split(",") if n)
    return total


def _group_size(attributes: str, devices: int) -> int:
    """Number of devices in a group, from any of the notations for `replica_groups`."""
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):  # {{0,1},{2,3}}
        return listed[1].count(",") + 1
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):  # [groups,size]<=[...]
        return int(iota[1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        # mesh['a'=2,'b'=4] {'b'}, and {'b':(1)2} for a part of an axis
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return devices
