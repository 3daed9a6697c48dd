"""What a user can want: each intent draws values for the current state and plans the calls that do it.

A plan is `(slots, calls)`: slots fill the phrases, calls are `(function, arguments)` in order. An argument
may be an `Id` (looked up by name first, unless the conversation has already shown it) or an `Out` (a value
from an earlier result). An intent returns None when the state offers nothing to do.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from pivotrl_jax.environments.toolbox.values import CARDS, DAYS, PLACES, ROOMS


@dataclasses.dataclass(frozen=True)
class Id:
    """The id of the `kind` named `name`."""

    kind: str
    name: str


@dataclasses.dataclass(frozen=True)
class Out:
    """The value under `key` in the last result of `function` in this turn."""

    function: str
    key: str


Plan = tuple[dict[str, Any], list[tuple[str, dict[str, Any]]]]


# kind -> (look-up function, its parameter, key of the id, service, attribute that holds the table)
KINDS = {
    "event": ("find_event", "title", "event", "Calendar", "events"),
    "file": ("find_file", "name", "file", "Files", "files"),
    "item": ("find_product", "item", "product", "Cart", "products"),
    "person": ("find_person", "name", "phone", "Chats", "people"),
    "task": ("find_task", "title", "task", "Tasks", "tasks"),
}


# functions whose result shows an id -> (kind, parameter that holds the name)
TELLS = {row[0]: (kind, row[1]) for kind, row in KINDS.items()} | {
    "add_event": ("event", "title"),
    "make_file": ("file", "name"),
}


def _named(d, kind: str, **rules) -> dict | None:
    """Slots for an existing thing: its name, and what the user calls it ("it" if just mentioned)."""
    title = d.existing(kind, **rules)
    return title and {"title": title, "obj": d.speak(kind, title), "focus": (kind, title)}


def add_event(d) -> Plan:
    title, day = d.fresh("event"), d.pick(DAYS)
    arguments = {"title": title, "day": day}
    slots = {"title": title, "day": day, "post": "", "focus": ("event", title)}
    if d.chance(0.5):
        arguments["hour"] = d.between(10, 23)
        slots["post"] = f" at {arguments['hour']}"
    return slots, [("add_event", arguments)]


def move_event(d) -> Plan | None:
    if not (slots := _named(d, "event")):
        return None
    slots["day"] = d.pick(DAYS, but=d.table("event")[slots["title"]]["day"])
    return slots, [("move_event", {"event": Id("event", slots["title"]), "day": slots["day"]})]


def cancel_event(d) -> Plan | None:
    if not (slots := _named(d, "event")):
        return None
    return slots | {"focus": None}, [("cancel_event", {"event": Id("event", slots["title"])})]


def add_guest(d) -> Plan | None:
    if not (slots := _named(d, "event")):
        return None
    slots["person"] = d.word("people")
    return slots, [("add_guest", {"event": Id("event", slots["title"]), "person": slots["person"]})]


def find_event(d) -> Plan | None:
    slots = _named(d, "event", unknown=True)
    return slots and (slots, [("find_event", {"title": slots["title"]})])


def make_file(d) -> Plan:
    title, folder = d.fresh("file"), d.pick(PLACES)
    slots = {"title": title, "folder": "home", "post": "", "pre": "", "focus": ("file", title)}
    if d.chance(0.5):
        slots |= {"folder": folder, "post": f" in folder {folder}", "pre": f"in folder {folder} "}
        return slots, [("make_file", {"name": title, "folder": folder})]
    return slots, [("make_file", {"name": title})]


def move_file(d) -> Plan | None:
    if not (slots := _named(d, "file")):
        return None
    slots["folder"] = d.pick(PLACES, but=d.table("file")[slots["title"]]["folder"])
    return slots, [("move_file", {"file": Id("file", slots["title"]), "folder": slots["folder"]})]


def lock_file(d) -> Plan | None:
    slots = _named(d, "file", having=("locked", False))
    return slots and (slots, [("lock_file", {"file": Id("file", slots["title"])})])


def unlock_file(d) -> Plan | None:
    slots = _named(d, "file", having=("locked", True))
    return slots and (slots, [("lock_file", {"file": Id("file", slots["title"]), "locked": False})])


def delete_file(d) -> Plan | None:
    slots = _named(d, "file")
    return slots and (slots | {"focus": None}, [("delete_file", {"file": Id("file", slots["title"])})])


def find_file(d) -> Plan | None:
    slots = _named(d, "file", unknown=True)
    return slots and (slots, [("find_file", {"name": slots["title"]})])


def add_product(d) -> Plan | None:
    if not (slots := _named(d, "item")):
        return None
    arguments = {"product": Id("item", slots["title"])}
    slots["count"] = d.between(2, 9)
    if slots["obj"] != "it" and d.chance(0.6):
        arguments["count"] = slots["count"]
        slots["obj"] = f"{slots['count']} {slots['title']}"
    slots["focus"] = None
    return slots, [("add_product", arguments)]


def drop_product(d) -> Plan | None:
    slots = _named(d, "item", among=d.world["Cart"].cart)
    return slots and (slots | {"focus": None}, [("drop_product", {"product": Id("item", slots["title"])})])


def cart_total(d) -> Plan | None:
    return ({}, [("cart_total", {})]) if d.world["Cart"].cart and d.alone("cart") else None


def pay_cart(d) -> Plan | None:
    if not d.world["Cart"].cart or not d.alone("cart"):
        return None
    if d.chance(0.6):
        card = d.pick(CARDS)
        slots = {"post": f" with the {card} card", "pre": f"with the {card} card "}
        return slots, [("pay_cart", {"card": card})]
    return {"post": "", "pre": ""}, [("pay_cart", {})]


def find_product(d) -> Plan | None:
    slots = _named(d, "item", unknown=True)
    return slots and (slots, [("find_product", {"item": slots["title"]})])


def send_message(d) -> Plan | None:
    if not (name := d.existing("person")):
        return None
    text = d.word("titles")
    return {"name": name, "text": text}, [("send_message", {"phone": Id("person", name), "text": text})]


def read_message(d) -> Plan | None:
    if not (name := d.unread()):
        return None
    return {"name": name}, [("read_message", {"name": name})]


def forward(d) -> Plan | None:
    name, other = d.unread(), d.existing("person")
    if not name or not other:
        return None
    text = Out("read_message", "text")
    calls = [
        ("read_message", {"name": name}),
        ("send_message", {"phone": Id("person", other), "text": text}),
    ]
    return {"name": name, "other": other}, calls


def mute_person(d) -> Plan | None:
    if not (name := d.existing("person", having=("muted", 0))):
        return None
    arguments, hours = {"phone": Id("person", name)}, ""
    if d.chance(0.5):
        arguments["hours"] = d.between(2, 7)
        hours = f"for {arguments['hours']} hours"
    return {"name": name, "post": hours and f" {hours}", "pre": hours and f"{hours} "}, [
        ("mute_person", arguments)
    ]


def add_person(d) -> Plan:
    name, phone = d.fresh("person"), d.free_phone()
    return {"name": name, "phone": phone}, [("add_person", {"name": name, "phone": phone})]


def set_heat(d) -> Plan | None:
    if not (room := d.room()):
        return None
    degrees = d.between(11, 29)
    degrees += degrees == d.world["Home"].heat[room]
    return {"room": room, "degrees": degrees}, [("set_heat", {"room": room, "degrees": degrees})]


def copy_heat(d) -> Plan | None:
    other, room = d.unread_room(), d.room()
    if not other or not room or d.world["Home"].heat[other] == d.world["Home"].heat[room]:
        return None
    calls = [
        ("read_heat", {"room": other}),
        ("set_heat", {"room": room, "degrees": Out("read_heat", "degrees")}),
    ]
    return {"room": room, "other": other}, calls


def read_heat(d) -> Plan | None:
    if not (room := d.unread_room()):
        return None
    return {"room": room}, [("read_heat", {"room": room})]


def light_on(d) -> Plan | None:
    room = d.room(light=False)
    return room and ({"room": room}, [("set_light", {"room": room})])


def light_off(d) -> Plan | None:
    room = d.room(light=True)
    return room and ({"room": room}, [("set_light", {"room": room, "on": False})])


def play_song(d) -> Plan | None:
    if not d.touch("song"):
        return None
    title, room = d.word("titles"), d.pick(ROOMS)
    if d.chance(0.5):
        slots = {"title": title, "post": f" in the {room}", "pre": f"in the {room} "}
        return slots, [("play_song", {"title": title, "room": room})]
    return {"title": title, "post": "", "pre": ""}, [("play_song", {"title": title})]


def set_alarm(d) -> Plan | None:
    hour, days = d.between(4, 23), [d.pick(DAYS)]
    if str(hour) in d.world["Home"].alarms or not d.touch("alarm"):
        return None
    if d.chance(0.6):
        days.append(d.pick(DAYS, but=days[0]))
    return {"hour": hour, "days": " and ".join(days)}, [("set_alarm", {"hour": hour, "days": days})]


def add_tasks(d) -> Plan | None:
    if not d.touch("board"):
        return None
    titles, board = [d.fresh("task")], d.pick(PLACES)
    if d.chance(0.4):
        titles.append(d.fresh("task"))
    slots = {"title": titles[-1], "board": "home", "post": "", "pre": ""}
    slots["tasks"] = " and ".join(f"task {title}" for title in titles)
    if d.chance(0.5):
        slots |= {"board": board, "post": f" on board {board}", "pre": f"on board {board} "}
        return slots, [("add_tasks", {"titles": titles, "board": board})]
    return slots, [("add_tasks", {"titles": titles})]


def move_task(d) -> Plan | None:
    if not (slots := _named(d, "task")):
        return None
    slots["board"] = d.pick(PLACES, but=d.table("task")[slots["title"]]["board"])
    return slots, [("move_task", {"task": Id("task", slots["title"]), "board": slots["board"]})]


def finish_task(d) -> Plan | None:
    slots = _named(d, "task", having=("done", False))
    return slots and (slots | {"focus": None}, [("finish_task", {"task": Id("task", slots["title"])})])


def list_tasks(d) -> Plan | None:
    boards = [b for b in PLACES if any(t["board"] == b for t in d.table("task").values())]
    if not boards or not d.alone("board"):
        return None
    board = d.pick(boards)
    return {"board": board}, [("list_tasks", {"board": board})]


def find_task(d) -> Plan | None:
    slots = _named(d, "task", unknown=True)
    return slots and (slots, [("find_task", {"title": slots["title"]})])


# service -> its intents; a name is the key of its phrase
INTENTS: dict[str, list[Callable]] = {
    "Calendar": [add_event, move_event, cancel_event, add_guest, find_event],
    "Files": [make_file, move_file, lock_file, unlock_file, delete_file, find_file],
    "Cart": [add_product, add_product, drop_product, cart_total, pay_cart, find_product],
    "Chats": [send_message, read_message, forward, mute_person, add_person],
    "Home": [set_heat, copy_heat, read_heat, light_on, light_off, play_song, set_alarm],
    "Tasks": [add_tasks, move_task, finish_task, list_tasks, find_task],
}
