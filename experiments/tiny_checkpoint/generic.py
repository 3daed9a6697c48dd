"""Procedural conversations between a user and an assistant, about freshly invented functions (services.py).

`Episode.play` draws services, objects and functions. Then, for every turn, it draws a request, the calls that
fulfil it, their results, and the reply.
"""

import json
import random
from typing import Any

import words as language
from services import Doc, Function, Services, Thing, phrase, spoken, value

OPENERS = ["", "", "", ""]  # none, four times: about three in ten requests have no opener
OPENERS += "please |can you |could you |i want to |i need to |now |hi, please |ok, |then ".split("|")
DONE = ["done", "it is done now"]
ACKS = "thank you very much|thanks|that was kind|this is great|thanks, that is all|good work|thank you".split(
    "|"
)
SINGLE_WEIGHTS = [4.0, 4.0, 1.5, 2.0, 0.5, 2.0, 0.5]  # in the order of language.VERBS
WAITS = ["wait a little", "let me think", "i need more time", "i must think again", "one second please"]


class Ask:
    """One request: its text, the arguments it fixes, and the argument it leaves out, if any."""

    def __init__(self, function: Function, text: str, name: str, arguments: dict, missing: str = ""):
        self.function, self.text, self.name, self.arguments, self.missing = (
            function,
            text,
            name,
            arguments,
            missing,
        )


class Episode(Services):
    """One conversation about freshly invented services."""

    def __init__(self, rng: random.Random, pool: list[str]):
        super().__init__(rng, pool)
        self.messages: list[dict] = []
        self.result_style = rng.choice(["bare", "status", "nested"])
        self.calls_made = 0
        self.last: tuple[Thing, str] | None = None

    # --- messages ---

    def user(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def say(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})

    def call(self, calls: list[tuple[str, dict, Any]]) -> None:
        """One action of one or more (name, arguments, result)."""
        made = []
        for name, arguments, _ in calls:
            made.append(
                {
                    "id": f"call_{self.calls_made}",
                    "type": "function",
                    "function": {"name": name, "arguments": arguments},
                }
            )
            self.calls_made += 1
        self.messages.append({"role": "assistant", "content": "", "tool_calls": made})
        for call, (name, _, result) in zip(made, calls):
            content = json.dumps(result)
            self.messages.append(
                {"role": "tool", "tool_call_id": call["id"], "name": name, "content": content}
            )

    # --- requests ---

    def reference(self, thing: Thing, name: str) -> str:
        if self.last == (thing, name) and self.rng.random() < 0.3:
            return "it"
        return self.rng.choice(
            [f"{thing.noun} {name}", f"the {thing.noun} {name}", name, f"the {thing.noun} called {name}"]
        )

    def ask(self, function: Function, may_miss: bool = True) -> Ask:
        """A request to use a function once, with its arguments; one required argument may be left out."""
        rng, thing, op = self.rng, function.thing, function.op
        verb = thing.verbs[op][0] if rng.random() < 0.75 else rng.choice(thing.verbs[op])
        missing, arguments = "", {}
        if op == "create":
            name = rng.choice([w for w in rng.sample(self.pool, 9) if w not in thing.objects])
            arguments[thing.name_key] = name
            parts = []
            fields = [f for f in thing.fields if f not in function.optional or rng.random() < 0.5]
            needed = [f for f in fields if f not in function.optional]
            if may_miss and needed and rng.random() < 0.2:
                missing = rng.choice(needed)
            for f in fields:
                arguments[f] = value(rng, f, self.pool)
                if f != missing:
                    parts.append(phrase(rng, f, arguments[f]))
            rng.shuffle(parts)
            front = f"{parts.pop()} " if parts and rng.random() < 0.3 else ""
            glue = rng.choice([" ", " ", " and ", ", "])
            article = rng.choice(["", "", "a ", "a new ", "the "])
            text = f"{front}{verb} {article}{thing.noun} {rng.choice(['called ', 'named ', '', ''])}{name}"
            text += (" " + glue.join(parts)) if parts else ""
        elif op in ("list", "count"):
            name, text = "", f"{verb} {rng.choice(['all', 'the', 'my'])} {thing.plural}"
        else:
            name = rng.choice(list(thing.objects))
            arguments["key"] = name
            what = self.reference(thing, name)
            if op == "set":
                new = arguments[function.field] = value(rng, function.field, self.pool)
                text = f"{verb} the {function.field} of {what}"
                if may_miss and rng.random() < 0.15:
                    missing = function.field
                elif rng.random() < 0.3:
                    text = f"to {spoken(new)} {text}"
                else:
                    text += f" {rng.choice(['to', 'to', 'as'])} {spoken(new)}"
            elif op == "move":
                to = function.doc["parameters"]["required"][1]
                arguments[to] = rng.choice(self.pool)
                text = (
                    f"{verb} {what} to {arguments[to]}"
                    if rng.random() < 0.7
                    else f"to {arguments[to]} {verb} {what}"
                )
            elif op == "find" and rng.random() < 0.5:
                text = rng.choice(
                    [f"tell me the {thing.fields[0]} of {what}", f"for {what} {verb} the {thing.fields[0]}"]
                )
            else:
                text = f"{verb} {what}"
        return Ask(function, text, name, arguments, missing)

    def finder(self, thing: Thing) -> Function:
        return next(f for f in self.functions if f.thing is thing and f.op in ("find", "list"))

    def lookup(self, thing: Thing, name: str) -> None:
        """Find out the id of an object with a call, unless the conversation has shown it already."""
        if name in thing.seen:
            return
        finder = self.finder(thing)
        arguments = {thing.name_key: name} if finder.op == "find" else {}
        self.call([(finder.name, arguments, self.result(finder, name))])

    def result(self, function: Function, name: str, arguments: dict | None = None) -> Any:
        """What a function returns. This also changes the objects."""
        thing, op, style = function.thing, function.op, self.result_style
        one = thing.objects.get(name)
        if op == "create":
            values = {f: arguments.get(f, function.optional.get(f)) for f in thing.fields}
            one = thing.add(name, values)
            thing.seen[name] = one["id"]
            return (
                {thing.id_key: one["id"]} if style != "status" else {"status": "ok", thing.id_key: one["id"]}
            )
        if op == "list":
            thing.seen.update({n: o["id"] for n, o in thing.objects.items()})
            if thing.by_id:
                return {thing.plural: [{thing.id_key: o["id"], "name": n} for n, o in thing.objects.items()]}
            return {thing.plural: list(thing.objects)}
        if op == "count":
            return {"count": len(thing.objects)}
        if op == "find":
            thing.seen[name] = one["id"]
            shown = {thing.id_key: one["id"], **{f: one[f] for f in thing.fields[:2]}}
            return {thing.noun: shown} if style == "nested" else shown
        if op == "delete":
            del thing.objects[name]
            thing.seen.pop(name, None)
        else:
            one.update({k: v for k, v in (arguments or {}).items() if k != thing.key})
        if style == "bare":
            return {"success": True}
        return {"status": "ok"} if style == "status" else {"result": "done"}

    def prepared(self, ask: Ask) -> tuple[str, dict, Any]:
        """The call that fulfils a request, and its result. Looks up what it needs first."""
        thing, function = ask.function.thing, ask.function
        arguments = {}
        for key in function.doc["parameters"]["properties"]:
            if key == thing.key and "key" in ask.arguments and function.op != "find":
                arguments[key] = thing.seen[ask.name] if thing.by_id else ask.name
            elif key == thing.name_key and function.op == "find":
                arguments[key] = ask.name
            elif key in ask.arguments:
                arguments[key] = ask.arguments[key]
        return function.name, arguments, self.result(function, ask.name, arguments)

    def needs_id(self, ask: Ask) -> bool:
        return ask.function.thing.by_id and ask.function.op in ("set", "delete", "move")

    def reply(self, ask: Ask, result: Any) -> str:
        op, thing = ask.function.op, ask.function.thing
        if op == "count":
            return f"there are {result['count']} {thing.plural}"
        if op == "list":
            return (
                f"the {thing.plural} are {', '.join(thing.objects)}"
                if thing.objects
                else f"there are no {thing.plural}"
            )
        if op == "find":
            shown = (
                result[thing.noun]
                if thing.noun in result and isinstance(result[thing.noun], dict)
                else result
            )
            field = thing.fields[0]
            return f"the {field} of {ask.name} is {spoken(shown[field]).lower()}"
        if op == "delete":
            return f"{thing.noun} {ask.name} is removed now"
        if ask.function.field:
            new = spoken(ask.arguments[ask.function.field]).lower()
            return f"{thing.noun} {ask.name} has {ask.function.field} {new} now"
        return f"{thing.noun} {ask.name} is done now"

    # --- turns ---

    def pick(self) -> Function:
        """A function that can be used: if it needs an object, there is one."""
        usable = [f for f in self.functions if f.thing.objects or f.op in ("create", "list", "count")]
        weights = [{"create": 3.0, "set": 2.0, "delete": 0.8}.get(f.op, 1.2) for f in usable]
        return self.rng.choices(usable, weights)[0]

    def request_turn(self) -> None:
        rng = self.rng
        ask = self.ask(self.pick())
        self.user(f"{rng.choice(OPENERS)}{ask.text}{rng.choice(['', '', '.', ' please', ' please.', '?'])}")
        if ask.missing:
            field = ask.missing
            self.say(
                rng.choice(
                    [f"which {field}", f"which {field} should it have", f"which {field} for {ask.name}"]
                )
            )
            new = ask.arguments[field]
            said = "yes" if new is True else spoken(new)
            self.user(
                rng.choice(
                    [
                        said,
                        f"{field} {said}",
                        f"the {field} is {said}",
                        f"it should be {said}",
                        f"{said} please",
                    ]
                )
            )
        if self.needs_id(ask):
            self.lookup(ask.function.thing, ask.name)
        if rng.random() < 0.05 and self.busy(ask):
            return
        name, arguments, result = self.prepared(ask)
        self.call([(name, arguments, result)])
        self.say(self.reply(ask, result))
        if ask.name in ask.function.thing.objects:
            self.last = (ask.function.thing, ask.name)

    def busy(self, ask: Ask) -> bool:
        """A call, its error that names a free value, and the corrected call. False if no number fits."""
        thing = ask.function.thing
        whole = [k for k, v in ask.arguments.items() if type(v) is int]
        if not whole or ask.function.op not in ("create", "set"):
            return False
        field = self.rng.choice(whole)
        free = self.rng.randint(1, 23)
        error = {"error": f"{field} {ask.arguments[field]} is taken, next free {field} is {free}"}
        kept = dict(thing.objects.get(ask.name, {}))
        seen, free_ids = dict(thing.seen), list(thing.free_ids)
        name, arguments, _ = self.prepared(ask)
        thing.seen, thing.free_ids = seen, free_ids
        if ask.function.op == "create":
            del thing.objects[ask.name]
        else:
            thing.objects[ask.name] = kept
        self.call([(name, arguments, error)])
        ask.arguments[field] = free
        name, arguments, result = self.prepared(ask)
        self.call([(name, arguments, result)])
        self.say(f"{field} {free} was free. done")
        return True

    def double_turn(self) -> None:
        """Two independent requests in one sentence, answered by two actions or by one with both calls."""
        rng = self.rng
        first, second = self.ask(self.pick(), False), self.ask(self.pick(), False)
        if first.name and (first.name, first.function.thing) == (second.name, second.function.thing):
            return self.request_turn()
        link = rng.choice([" and ", " and then ", ", then ", " and also "])
        self.user(f"{rng.choice(OPENERS)}{first.text}{link}{second.text}.")
        for ask in (first, second):
            if self.needs_id(ask):
                self.lookup(ask.function.thing, ask.name)
        calls = [self.prepared(first), self.prepared(second)]
        if rng.random() < 0.5:
            self.call(calls)
        else:
            self.call(calls[:1])
            self.call(calls[1:])
        self.say(rng.choice(DONE))
        return None

    def copy_turn(self) -> None:
        """Set a field of one object to the value of another's. Only the result of a look-up shows it."""
        rng = self.rng
        setters = [
            f
            for f in self.functions
            if f.op == "set" and f.field in f.thing.fields[:2] and len(f.thing.objects) > 1
        ]
        setters = [f for f in setters if any(g.op == "find" and g.thing is f.thing for g in self.functions)]
        if not setters:
            return self.request_turn()
        function = rng.choice(setters)
        thing, field = function.thing, function.field
        finder = next(g for g in self.functions if g.op == "find" and g.thing is thing)
        name, source = rng.sample(list(thing.objects), 2)
        text = f"{thing.verbs['set'][0]} the {field} of {self.reference(thing, name)}"
        text = rng.choice(
            [f"{text} to the {field} of {source}", f"{text} like {source}", f"like {source} {text}"]
        )
        self.user(f"{rng.choice(OPENERS)}{text}")
        self.call([(finder.name, {thing.name_key: source}, self.result(finder, source))])
        ask = Ask(function, text, name, {"key": name, field: thing.objects[source][field]})
        if thing.by_id:
            self.lookup(thing, name)
        call = self.prepared(ask)
        self.call([call])
        self.say(self.reply(ask, call[2]))
        self.last = (thing, name)
        return None

    def talk_turn(self) -> None:
        rng = self.rng
        kind = rng.choice(["thanks", "thanks", "wait", "hello", "unable"])
        if kind == "thanks":
            self.user(rng.choice(ACKS) + rng.choice(["", "", " my friend", "."]))
            self.say("you are welcome my friend")
        elif kind == "wait":
            self.user(rng.choice(WAITS))
            self.say("take all the time you need")
        elif kind == "hello":
            self.user(
                rng.choice(["hello", "hi", "hello, are you there?", "hi assistant", "what can you do?"])
            )
            self.say(f"hello, i can help with {' and '.join(t.plural for t in self.things)}")
        else:
            noun = rng.choice([n for n in language.NOUNS if not any(n == t.noun for t in self.things)])
            if any(noun in doc["description"] for doc in self.docs):
                return self.request_turn()
            verb = rng.choice(language.VERBS[rng.choice(list(language.VERBS))])
            self.user(f"{rng.choice(OPENERS)}{verb} the {noun} {rng.choice(self.pool)}")
            self.say(
                rng.choice(
                    [
                        "sorry, i have no tool for that",
                        "sorry, i can not do that",
                        "i can not do that with my tools",
                    ]
                )
            )
        return None

    def play(self, turns: int) -> tuple[list[dict], list[Doc]]:
        """(messages, docs of the functions on offer)."""
        for turn in range(turns):
            draw = self.rng.random()
            if draw < 0.14 and (turn or self.rng.random() < 0.3):
                self.talk_turn()
            elif draw < 0.34:
                self.double_turn()
            elif draw < 0.42:
                self.copy_turn()
            else:
                self.request_turn()
        return self.messages, self.docs


def episode(rng: random.Random, pool: list[str]) -> tuple[list[dict], list[Doc]]:
    """A conversation of two to four requests with 6 to 12 functions on offer."""
    made = Episode(rng, pool)
    made.open_services()
    return made.play(rng.randint(2, 4))


def single_call(rng: random.Random, pool: list[str]) -> tuple[list[dict], list[Doc]]:
    """One request with one or two functions on offer, ending with the call that answers it."""
    made = Episode(rng, pool)
    noun = rng.sample(list(language.NOUNS), 2)
    thing, other = Thing(rng, noun[0], False), Thing(rng, noun[1], False)
    for t in (thing, other):
        t.add(rng.choice(pool), {f: value(rng, f, pool) for f in t.fields})
    made.things = [thing, other]
    ops = rng.choices(list(language.VERBS), SINGLE_WEIGHTS, k=2)
    pairs = [(ops[0], thing), (ops[1], other if rng.random() < 0.5 or ops[0] == ops[1] else thing)]
    functions = [made.function(op, t, t.fields[0] if op == "set" else "") for op, t in pairs]
    made.functions = functions[: rng.randint(1, 2)]
    made.docs = [f.doc for f in rng.sample(made.functions, len(made.functions))]
    ask = made.ask(made.functions[0], may_miss=False)
    made.user(rng.choice(OPENERS) + ask.text + rng.choice(["", ".", " please"]))
    made.call([made.prepared(ask)])
    return made.messages[:2], made.docs
