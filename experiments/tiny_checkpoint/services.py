"""Procedural services: kinds of objects and the functions on them, newly invented for every conversation.

Function names often consist of random words, so that only the `<tools>` lines say what a function does.
Objects are referred to by name, or by an id that another call finds.
"""

import random
from typing import Any

import words as language

Doc = dict[str, Any]

TYPES = {"int": "integer", "hour": "integer", "float": "float", "flag": "boolean", "tags": "array"}


class Thing:
    """One kind of object in the world: its noun, its fields, how functions refer to it, and its objects."""

    def __init__(self, rng: random.Random, noun: str, by_id: bool):
        self.noun, self.plural, self.by_id = noun, language.NOUNS[noun], by_id
        self.fields = rng.sample(list(language.FIELDS), rng.randint(2, 4))
        self.objects: dict[str, dict] = {}
        self.seen: dict[str, Any] = {}  # name -> id, once the conversation has shown it
        self.id_prefix = noun[0] if rng.random() < 0.1 else ""
        self.free_ids = rng.sample(range(1, 100), 40)
        self.id_key = rng.choice(["id", noun, noun, f"{noun}_id"])
        names = ["name", "name", "title"] + [f"{noun}_name", noun] * (not by_id)
        self.name_key = rng.choice([n for n in names if n not in self.fields])
        self.verbs = {op: rng.sample(verbs, len(verbs)) for op, verbs in language.VERBS.items()}

    @property
    def key(self) -> str:
        return self.id_key if self.by_id else self.name_key

    def add(self, name: str, values: dict) -> dict:
        number = self.free_ids.pop()
        self.objects[name] = {
            "id": f"{self.id_prefix}{number}" if self.id_prefix else number,
            "name": name,
            **values,
        }
        return self.objects[name]


class Function:
    """One function on offer: what it does (`op` on `thing`, maybe on one `field`) and its argument fields."""

    def __init__(self, name: str, op: str, thing: Thing, field: str, doc: Doc, optional: dict[str, Any]):
        self.name, self.op, self.thing, self.field, self.doc, self.optional = (
            name,
            op,
            thing,
            field,
            doc,
            optional,
        )


def value(rng: random.Random, field: str, pool: list[str]) -> Any:
    """A random value of a field's kind."""
    kind = language.FIELDS[field][0]
    if kind == "day":
        return rng.choice(language.DAYS)
    if kind == "status":
        return rng.choice(language.STATUSES)
    if kind == "hour":
        return rng.randint(1, 23)
    if kind == "int":
        return rng.randint(1, 99)
    if kind == "float":
        return rng.randint(1, 20) + 0.5
    if kind == "flag":
        return True
    if kind == "tags":
        return rng.sample(pool, rng.randint(1, 3))
    if kind == "text":
        return " ".join(rng.sample(pool, rng.randint(2, 4)))
    if kind == "path":
        return rng.choice(["{0}.txt", "{0}/{1}", "{0}_{1}"]).format(*rng.sample(pool, 2))
    return rng.choice(pool)


def spoken(value: Any) -> str:
    """A value as a user says it."""
    if isinstance(value, list):
        return " and ".join(value)
    if value is True or value is False:
        return "true" if value else "false"
    return str(value)


def phrase(rng: random.Random, field: str, value: Any) -> str:
    """A field and its value as part of a request."""
    return rng.choice(language.FIELDS[field][1]).format(v=spoken(value))


class Services:
    """The things of one conversation, the functions on offer, and distractors."""

    def __init__(self, rng: random.Random, pool: list[str]):
        self.rng, self.pool = rng, pool
        self.naming = rng.choice(["verb_noun", "verb_noun", "noun_verb", "random", "random", "word"])
        self.taken: set[str] = set()
        self.things: list[Thing] = []
        self.functions: list[Function] = []
        self.docs: list[Doc] = []

    def function_name(self, verb: str, noun: str, field: str) -> str:
        rng = self.rng
        style = self.naming if rng.random() < 0.85 else "random"
        tail = [field] if field else []
        for _ in range(100):
            if style == "verb_noun":
                name = "_".join([verb, noun, *tail])
            elif style == "noun_verb":
                name = "_".join([noun, verb, *tail])
            elif style == "word":
                name = rng.choice(self.pool)
            else:
                name = "_".join(rng.sample(self.pool, 2))
            if name not in self.taken:
                self.taken.add(name)
                return name
            style = "random"
        raise ValueError(f"no free function name for {verb} {noun}")

    def function(self, op: str, thing: Thing, field: str = "") -> Function:
        rng = self.rng
        verb, noun, plural = thing.verbs[op][0], thing.noun, thing.plural
        optional: dict[str, Any] = {}
        properties: dict[str, dict] = {}
        required: list[str] = []

        def argument(key: str, kind: str, default: Any = None) -> None:
            properties[key] = {"type": kind}
            if default is None:
                required.append(key)
            else:
                optional[key] = properties[key]["default"] = default

        key_type = "integer" if thing.by_id and not thing.id_prefix else "string"
        if op == "create":
            argument(thing.name_key, "string")
            for i, f in enumerate(thing.fields):
                kind = language.FIELDS[f][0]
                default = (
                    False
                    if kind == "flag"
                    else value(rng, f, self.pool)
                    if i and rng.random() < 0.4
                    else None
                )
                argument(f, TYPES.get(kind, "string"), default)
            described = rng.choice(["a {n}", "a new {n}", "one {n}"])
        elif op == "set":
            argument(thing.key, key_type)
            argument(field, TYPES.get(language.FIELDS[field][0], "string"))
            described = rng.choice(["the {f} of a {n}", "{n} {f}", "the {f} of one {n}"])
        elif op == "find":
            argument(thing.name_key, "string")
            described = rng.choice(["a {n} by name", "one {n}", "the {n} of a name"])
        elif op == "delete":
            argument(thing.key, key_type)
            described = rng.choice(["a {n}", "one {n}"])
        elif op == "move":
            argument(thing.key, key_type)
            argument(rng.choice(["to", "place", "target"]), "string")
            described = rng.choice(["a {n} to a place", "one {n} to another place"])
        else:
            described = rng.choice(["all {p}", "the {p}"])
        description = f"{verb} {described.format(n=noun, p=plural, f=field)}"
        subject = plural if op in ("list", "count") else noun
        # The name may use another verb of the same meaning: requests repeat the description, not the name.
        name = self.function_name(rng.choice(thing.verbs[op][:2]), subject, field)
        parameters = {"type": "dict", "properties": properties, "required": required}
        return Function(
            name,
            op,
            thing,
            field,
            {"name": name, "description": description, "parameters": parameters},
            optional,
        )

    def open_services(self, low: int = 6, high: int = 12) -> None:
        """Draw things, objects and functions. `self.docs` also contains distractors."""
        rng = self.rng
        nouns = rng.sample(list(language.NOUNS), 4)
        self.things = [Thing(rng, n, rng.random() < 0.65) for n in nouns[: rng.randint(1, 3)]]
        for thing in self.things:
            for name in rng.sample(self.pool, rng.randint(2, 4)):
                thing.add(name, {f: value(rng, f, self.pool) for f in thing.fields})
        wanted = rng.randint(low, high)
        options = [
            (op, thing, field)
            for thing in self.things
            for op in language.VERBS
            for field in (rng.sample(thing.fields, 2) if op == "set" else [""])
        ]
        rng.shuffle(options)
        finders = [("find", t, "") for t in self.things if t.by_id and rng.random() < 0.8]
        finders += [("list", t, "") for t in self.things if t.by_id and ("find", t, "") not in finders]
        chosen = [*finders, *[o for o in options if o not in finders]]
        used = chosen[: max(len(finders) + 2, int(wanted * rng.uniform(0.6, 1.0)))][:wanted]
        self.functions = [self.function(*o) for o in used]
        docs = [f.doc for f in self.functions]
        stranger = Thing(rng, nouns[3], False)
        for op in rng.sample(list(language.VERBS), 7):
            if len(docs) >= wanted:
                break
            docs.append(self.function(op, stranger, stranger.fields[0] if op == "set" else "").doc)
        rng.shuffle(docs)
        self.docs = docs
