"""Six small stateful services that follow BFCL's backend protocol.

`_load_scenario(config)` sets the public attributes, which are the state; public methods are the functions;
results are small JSON-able dicts, failures are `{"error": ...}`. Ids depend on content only (`_identify`), so
two independent calls leave the same state and the same results in either order.
"""

import copy
from typing import Any

from pivotrl_jax.environments.toolbox import values


def _integer(value: Any, low: int = 0, high: int = 99) -> int | None:
    """The integer meant by `value` (5.0 is 5, True is not 1), or None if there is none in the range."""
    if type(value) is float and low <= value <= high and value.is_integer():
        return int(value)
    return value if type(value) is int and low <= value <= high else None


def _word(value: Any) -> bool:
    return type(value) is str and 0 < len(value) <= 40


def _words(value: Any) -> bool:
    return type(value) is list and 0 < len(value) <= 9 and all(_word(v) for v in value)


class Service:
    """What the services share: loading, ids, look-up by id."""

    _state: dict[str, Any] = {}  # public attribute -> value when the config leaves it out

    def _load_scenario(self, config: dict, long_context: bool = False) -> None:
        for key, default in self._state.items():
            setattr(self, key, copy.deepcopy(config.get(key, default)))
        self._salt = config.get("salt", 0)

    def _identify(self, word: str, taken: list[int]) -> int:
        """An id from 10 to 98 that depends on the word and the task, not on what was made before."""
        number = self._salt + sum((i + 1) * ord(c) for i, c in enumerate(word))
        while 10 + number % 89 in taken:
            number += 1
        return 10 + number % 89


def _find(table: dict[str, dict], key: str, number: Any) -> str | None:
    number = _integer(number)
    return next((name for name, entry in table.items() if entry[key] == number), None)


class Calendar(Service):
    """State: `events` = title -> {"event": id, "day", "hour", "guests"}."""

    _state = {"events": {}}

    def find_event(self, title):
        if not _word(title) or title not in self.events:
            return {"error": "no such event"}
        entry = self.events[title]
        return {"event": entry["event"], "day": entry["day"], "hour": entry["hour"]}

    def add_event(self, title, day, hour=9):
        hour = _integer(hour, 0, 23)
        if not _word(title) or day not in values.DAYS or hour is None:
            return {"error": "wrong value"}
        if title in self.events:
            return {"error": "event exists"}
        number = self._identify(title, [e["event"] for e in self.events.values()])
        self.events[title] = {"event": number, "day": day, "hour": hour, "guests": []}
        return {"event": number}

    def move_event(self, event, day):
        title = _find(self.events, "event", event)
        if title is None or day not in values.DAYS:
            return {"error": "wrong value" if title else "no such event"}
        self.events[title]["day"] = day
        return {"moved": title}

    def cancel_event(self, event):
        title = _find(self.events, "event", event)
        if title is None:
            return {"error": "no such event"}
        del self.events[title]
        return {"removed": title}

    def add_guest(self, event, person):
        title = _find(self.events, "event", event)
        if title is None or not _word(person):
            return {"error": "wrong value" if title else "no such event"}
        guests = self.events[title]["guests"]
        if person in guests:
            return {"error": "guest exists"}
        self.events[title]["guests"] = sorted([*guests, person])
        return {"guest": person}


class Files(Service):
    """State: `files` = name -> {"file": id, "folder", "locked"}."""

    _state = {"files": {}}

    def find_file(self, name):
        if not _word(name) or name not in self.files:
            return {"error": "no such file"}
        return {"file": self.files[name]["file"], "folder": self.files[name]["folder"]}

    def make_file(self, name, folder="home"):
        if not _word(name) or folder not in values.PLACES:
            return {"error": "wrong value"}
        if name in self.files:
            return {"error": "file exists"}
        number = self._identify(name, [f["file"] for f in self.files.values()])
        self.files[name] = {"file": number, "folder": folder, "locked": False}
        return {"file": number}

    def move_file(self, file, folder):
        name = _find(self.files, "file", file)
        if name is None or folder not in values.PLACES:
            return {"error": "wrong value" if name else "no such file"}
        self.files[name]["folder"] = folder
        return {"moved": name}

    def lock_file(self, file, locked=True):
        name = _find(self.files, "file", file)
        if name is None or type(locked) is not bool:
            return {"error": "wrong value" if name else "no such file"}
        self.files[name]["locked"] = locked
        return {"locked": locked}

    def delete_file(self, file):
        name = _find(self.files, "file", file)
        if name is None:
            return {"error": "no such file"}
        del self.files[name]
        return {"removed": name}


class Cart(Service):
    """State: `products` = item -> {"product": id, "price"}; `cart` = item -> count; `paid` = card -> sum."""

    _state = {"products": {}, "cart": {}, "paid": {}}

    def find_product(self, item):
        if not _word(item) or item not in self.products:
            return {"error": "no such item"}
        return dict(self.products[item])

    def add_product(self, product, count=1):
        item, count = _find(self.products, "product", product), _integer(count, 1, 99)
        if item is None or count is None:
            return {"error": "wrong value" if item else "no such product"}
        self.cart[item] = self.cart.get(item, 0) + count
        return {"item": item}

    def drop_product(self, product):
        item = _find(self.products, "product", product)
        if item is None or item not in self.cart:
            return {"error": "no such product"}
        del self.cart[item]
        return {"removed": item}

    def cart_total(self):
        return {"total": sum(self.products[item]["price"] * count for item, count in self.cart.items())}

    def pay_cart(self, card="silver"):
        if card not in values.CARDS or not self.cart:
            return {"error": "wrong value"}
        total = self.cart_total()["total"]
        self.paid[card] = self.paid.get(card, 0) + total
        self.cart = {}
        return {"paid": total}


class Chats(Service):
    """State: `people` = name -> {"phone", "text", "muted"}; `sent` = [[phone, text], ...] in sorted order."""

    _state = {"people": {}, "sent": []}

    def find_person(self, name):
        if not _word(name) or name not in self.people:
            return {"error": "no such person"}
        return {"phone": self.people[name]["phone"]}

    def add_person(self, name, phone):
        phone = _integer(phone)
        if not _word(name) or phone is None:
            return {"error": "wrong value"}
        if name in self.people or _find(self.people, "phone", phone):
            return {"error": "person exists"}
        self.people[name] = {"phone": phone, "text": "", "muted": 0}
        return {"saved": name}

    def send_message(self, phone, text):
        name = _find(self.people, "phone", phone)
        if name is None or not _word(text):
            return {"error": "wrong value" if name else "no such phone"}
        self.sent = sorted([*self.sent, [_integer(phone), text]])
        return {"sent": text}

    def read_message(self, name):
        if not _word(name) or not self.people.get(name, {}).get("text"):
            return {"error": "no message"}
        return {"name": name, "text": self.people[name]["text"]}

    def mute_person(self, phone, hours=8):
        name, hours = _find(self.people, "phone", phone), _integer(hours)
        if name is None or hours is None:
            return {"error": "wrong value" if name else "no such phone"}
        self.people[name]["muted"] = hours
        return {"muted": name}


class Home(Service):
    """State: `heat`, `lights`, `songs` = room -> degrees, bool, title; `alarms` = hour -> days."""

    _state = {"heat": {}, "lights": {}, "songs": {}, "alarms": {}}

    def read_heat(self, room):
        if not _word(room) or room not in self.heat:
            return {"error": "no such room"}
        return {"room": room, "degrees": self.heat[room]}

    def set_heat(self, room, degrees):
        degrees = _integer(degrees)
        if not _word(room) or room not in self.heat or degrees is None:
            return {"error": "wrong value"}
        self.heat[room] = degrees
        return {"room": room, "degrees": degrees}

    def set_light(self, room, on=True):
        if not _word(room) or room not in self.lights or type(on) is not bool:
            return {"error": "wrong value"}
        self.lights[room] = on
        return {"room": room, "on": on}

    def play_song(self, title, room="kitchen"):
        if not _word(title) or room not in values.ROOMS:
            return {"error": "wrong value"}
        self.songs[room] = title
        return {"song": title}

    def set_alarm(self, hour, days):
        hour = _integer(hour, 0, 23)
        if hour is None or not _words(days) or not all(day in values.DAYS for day in days):
            return {"error": "wrong value"}
        if len(set(days)) < len(days):
            return {"error": "wrong value"}
        self.alarms[str(hour)] = [day for day in values.DAYS if day in days]
        return {"alarm": hour}


class Tasks(Service):
    """State: `tasks` = title -> {"task": id, "board", "done"}."""

    _state = {"tasks": {}}

    def find_task(self, title):
        if not _word(title) or title not in self.tasks:
            return {"error": "no such task"}
        return {"task": self.tasks[title]["task"], "board": self.tasks[title]["board"]}

    def add_tasks(self, titles, board="home"):
        if not _words(titles) or board not in values.PLACES:
            return {"error": "wrong value"}
        if len(set(titles)) < len(titles) or any(title in self.tasks for title in titles):
            return {"error": "task exists"}
        for title in titles:
            number = self._identify(title, [t["task"] for t in self.tasks.values()])
            self.tasks[title] = {"task": number, "board": board, "done": False}
        return {"board": board}

    def move_task(self, task, board):
        title = _find(self.tasks, "task", task)
        if title is None or board not in values.PLACES:
            return {"error": "wrong value" if title else "no such task"}
        self.tasks[title]["board"] = board
        return {"moved": title}

    def finish_task(self, task):
        title = _find(self.tasks, "task", task)
        if title is None or self.tasks[title]["done"]:
            return {"error": "no such task"}
        self.tasks[title]["done"] = True
        return {"done": title}

    def list_tasks(self, board):
        if not _word(board) or board not in values.PLACES:
            return {"error": "no such board"}
        return {"board": board, "tasks": sorted(t for t, e in self.tasks.items() if e["board"] == board)}


BACKENDS: dict[str, type] = {kind.__name__: kind for kind in (Calendar, Files, Cart, Chats, Home, Tasks)}
