"""A task while it is being written: its live services, what was said so far, and its random numbers."""

import random
from collections.abc import Sequence
from typing import Any

from pivotrl_jax.environments.toolbox.docs import DEFAULTS
from pivotrl_jax.environments.toolbox.intents import KINDS, TELLS, Id, Out, Plan
from pivotrl_jax.environments.toolbox.services import BACKENDS
from pivotrl_jax.environments.toolbox.values import DAYS, PLACES, ROOMS, WORDS


class Draft:
    """The state that intents draw from and plans act on.

    All randomness comes from `random.Random(text).random()`, whose stream no Python version changes.
    """

    def __init__(self, seed: str, vocabulary: str):
        """`vocabulary` is the split whose words are used."""
        self._random = random.Random(seed).random
        self._pools = {kind: list(splits[vocabulary]) for kind, splits in WORDS.items()}
        self.world: dict[str, Any] = {}
        self.config: dict[str, dict] = {}
        self.focus: tuple[str, str] | None = None  # (kind, name) that "it" refers to
        self.first = True  # the clause being drawn is the first of its turn
        self.solo = False  # the clause must be the only one of its turn
        self._touched: set[tuple] = set()  # what the clauses of this turn are about
        self._known: dict[tuple, Any] = {}  # ids, rooms and messages that results have shown
        self._reserved: set[tuple] = set()  # ids that new things will get

    # Chance

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def between(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence, but: Any = None) -> Any:
        """One of the options, except `but`."""
        if but is not None:
            options = [option for option in options if option != but]
        return options[int(self._random() * len(options))]

    def word(self, kind: str) -> str:
        """A value of the vocabulary that this task has not used yet."""
        pool = self._pools[kind]
        i = int(self._random() * len(pool))
        pool[i], pool[-1] = pool[-1], pool[i]
        return pool.pop()

    def shuffle(self, things: list) -> None:
        for i in range(len(things) - 1, 0, -1):
            j = int(self._random() * (i + 1))
            things[i], things[j] = things[j], things[i]

    def _numbers(self, count: int, low: int, high: int) -> list[int]:
        numbers: list[int] = []
        while len(numbers) < count:
            if (number := self.between(low, high)) not in numbers:
                numbers.append(number)
        return numbers

    # The world at the start

    def open(self, service: str) -> None:
        """Draw the service's initial state and load it."""
        config = getattr(self, f"_config_{service.lower()}")()
        self.config[service] = config | {"salt": self.between(0, 88)}
        self.world[service] = BACKENDS[service]()
        self.world[service]._load_scenario(self.config[service])

    def _config_calendar(self) -> dict:
        ids = self._numbers(self.between(3, 4), 10, 98)
        events = {
            self.word("titles"): {
                "event": i,
                "day": self.pick(DAYS),
                "hour": self.between(7, 22),
                "guests": [],
            }
            for i in ids
        }
        return {"events": events}

    def _config_files(self) -> dict:
        ids = self._numbers(self.between(3, 4), 10, 98)
        files = {
            self.word("titles"): {"file": i, "folder": self.pick(PLACES), "locked": self.chance(0.4)}
            for i in ids
        }
        return {"files": files}

    def _config_cart(self) -> dict:
        ids = self._numbers(self.between(4, 5), 10, 98)
        products = {self.word("items"): {"product": i, "price": self.between(2, 9)} for i in ids}
        return {"products": products, "cart": {item: self.between(1, 3) for item in list(products)[:2]}}

    def _config_chats(self) -> dict:
        phones = self._numbers(self.between(3, 4), 10, 98)
        people = {
            self.word("people"): {"phone": phone, "text": self.word("titles"), "muted": 0} for phone in phones
        }
        return {"people": people}

    def _config_home(self) -> dict:
        rooms = list(ROOMS)
        self.shuffle(rooms)
        heat = dict(zip(rooms[:4], self._numbers(4, 11, 28)))
        return {"heat": heat, "lights": {room: self.chance(0.5) for room in heat}}

    def _config_tasks(self) -> dict:
        ids = self._numbers(self.between(3, 4), 10, 98)
        tasks = {self.word("titles"): {"task": i, "board": self.pick(PLACES), "done": False} for i in ids}
        return {"tasks": tasks}

    # What intents ask

    def begin_turn(self) -> None:
        self.first, self.solo = True, False
        self._touched.clear()

    def touch(self, *key: str) -> bool:
        """Reserve a thing for a clause; False if an earlier clause of this turn is already about it."""
        if key in self._touched:
            return False
        self._touched.add(key)
        return True

    def alone(self, *key: str) -> bool:
        """Reserve the whole turn for one clause, because its result depends on what is done before it."""
        self.solo = self.first
        return self.first and self.touch(*key)

    def table(self, kind: str) -> dict[str, dict]:
        return getattr(self.world[KINDS[kind][3]], KINDS[kind][4])

    def fresh(self, kind: str) -> str:
        """A word for a new thing whose id is not taken, so that ids do not depend on the order of calls."""
        key, service = KINDS[kind][2], self.world[KINDS[kind][3]]
        ids = {entry[key] for entry in self.table(kind).values()}
        while True:
            word = self.word("people" if kind == "person" else "titles")
            number = service._identify(word, [])
            if number not in ids and (kind, number) not in self._reserved:
                self._reserved.add((kind, number))
                self.touch(kind, word)
                return word

    def existing(
        self, kind: str, unknown: bool = False, having: tuple | None = None, among=None
    ) -> str | None:
        """The name of an existing thing that no clause of this turn is about; often the one just mentioned.

        `unknown`: no result has shown its id; `having`: (key, value) of its entry; `among`: only these names.
        """
        names = [
            name
            for name, entry in self.table(kind).items()
            if (kind, name) not in self._touched
            and not (unknown and (kind, name) in self._known)
            and (having is None or entry[having[0]] == having[1])
            and (among is None or name in among)
        ]
        if not names:
            return None
        name = self.pick(names)
        if (
            self.first
            and self.focus
            and self.focus[0] == kind
            and self.focus[1] in names
            and self.chance(0.7)
        ):
            name = self.focus[1]
        self.touch(kind, name)
        return name

    def speak(self, kind: str, name: str) -> str:
        """How the user refers to it: often as "it", if the turn before was about nothing else."""
        if self.first and self.focus == (kind, name) and self.chance(0.7):
            return "it"
        return name if kind == "item" else f"{kind} {name}"

    def room(self, light: bool | None = None) -> str | None:
        home = self.world["Home"]
        rooms = [r for r in home.heat if light is None or home.lights[r] is light]
        return self._claim("room", rooms)

    def unread_room(self) -> str | None:
        return self._claim("room", [r for r in self.world["Home"].heat if ("room", r) not in self._known])

    def unread(self) -> str | None:
        """A person whose message has not been read."""
        people = self.table("person")
        names = [n for n in people if people[n]["text"] and ("message", n) not in self._known]
        return self._claim("person", names)

    def _claim(self, kind: str, names: list[str]) -> str | None:
        names = [name for name in names if (kind, name) not in self._touched]
        if not names:
            return None
        name = self.pick(names)
        self.touch(kind, name)
        return name

    def free_phone(self) -> int:
        return self._claim_number({entry["phone"] for entry in self.table("person").values()})

    def _claim_number(self, taken: set[int]) -> int:
        while (number := self.between(10, 98)) in taken or not self.touch("phone", str(number)):
            pass
        return number

    # What plans do

    def cost(self, plan: Plan) -> int:
        """How many calls the plan takes, look-ups included."""
        ids = [v for _, arguments in plan[1] for v in arguments.values() if isinstance(v, Id)]
        return len(plan[1]) + sum((v.kind, v.name) not in self._known for v in ids)

    def perform(self, plans: list[Plan], style: dict[str, bool]) -> tuple[list[str], list[int], dict]:
        """Execute the plans. Returns the call strings, the sizes of the groups that could be made at once,
        and the results of the last plan's calls merged into one dict.

        With `style["bundle"]`, the look-ups of all plans come first; otherwise each comes when it is needed.
        With `style["last_first"]`, the calls of the last plan come first; plans of one turn are independent.
        They are executed in the users' order all the same, since later draws depend on it.
        """
        act = _Turn(self, style)
        if style["bundle"]:
            for plan in plans:
                for _, arguments in plan[1]:
                    act.look_up(arguments)
        results: dict = {}
        made: list[list[str]] = []  # calls of each plan
        for plan in plans:
            start, results = len(act.truth), {}
            for function, arguments in plan[1]:
                act.look_up(arguments)
                results |= act.call(function, arguments)
            made.append(act.truth[start:])
        truth = [text for calls in made[::-1] for text in calls] if style["last_first"] else act.truth
        return truth, act.groups, results

    def learn(self, function: str, arguments: dict, result: dict) -> None:
        """Remember the ids that the result shows, so that nothing is looked up twice."""
        if function in TELLS:
            kind, parameter = TELLS[function]
            self._known[kind, arguments[parameter]] = result[KINDS[kind][2]]
        elif function == "add_person":
            self._known["person", arguments["name"]] = arguments["phone"]
        elif function in ("read_heat", "set_heat"):
            self._known["room", arguments["room"]] = True
        elif function == "read_message":
            self._known["message", arguments["name"]] = True

    def known(self, thing: Id) -> Any:
        return self._known.get((thing.kind, thing.name))


class _Turn:
    """Makes the calls of one user turn and records them."""

    def __init__(self, draft: Draft, style: dict[str, bool]):
        self.draft, self.style = draft, style
        self.truth: list[str] = []
        self.groups: list[int] = []
        self._call_index: dict[Any, int] = {}  # Id or function -> index of the call that gave it
        self._results: dict[str, dict] = {}

    def look_up(self, arguments: dict) -> None:
        for value in arguments.values():
            if isinstance(value, Id) and self.draft.known(value) is None:
                function, parameter = KINDS[value.kind][:2]
                self._call_index[value] = len(self.truth)
                self.call(function, {parameter: value.name})

    def call(self, function: str, arguments: dict) -> dict:
        needs = [-1]
        values = {}
        for key, value in arguments.items():
            if isinstance(value, Id):
                needs.append(self._call_index.get(value, -1))
                value = self.draft.known(value)
            elif isinstance(value, Out):
                needs.append(self._call_index[value.function])
                value = self._results[value.function][value.key]
            values[key] = value
        if self.style["defaults"]:
            values |= {k: v for k, v in DEFAULTS[function].items() if v is not None and k not in values}
        start = len(self.truth) - (self.groups[-1] if self.groups else 0)
        if self.groups and max(needs) < start:
            self.groups[-1] += 1
        else:
            self.groups.append(1)
        self._call_index[function] = len(self.truth)
        names = reversed(values) if self.style["reversed"] else values
        self.truth.append(f"{function}({', '.join(f'{k}={values[k]!r}' for k in names)})")
        service = next(s for s in self.draft.world.values() if hasattr(s, function))
        result = getattr(service, function)(**values)
        if "error" in result:
            raise AssertionError(f"the expert failed: {self.truth[-1]} -> {result}")
        self._results[function] = result
        self.draft.learn(function, values, result)
        return result
