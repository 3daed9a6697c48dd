"""What users and experts say: for each intent, a few verb phrases and two sentence frames.

A clause is a frame with a verb phrase in it. The combination of verb phrase number v and frame number f is
held out for the test split when `(v + f) % 3 == 0`; every verb phrase and every frame also occurs in a
combination that is not. `obj` is a noun with a name ("event lunch") or "it"; `post` and `pre` are an optional
value after or before the verb.
"""

import dataclasses

_LOOK = ("tell me", "show me", "look up", "check")


@dataclasses.dataclass(frozen=True)
class Phrase:
    """One intent. `ask` is what the expert says after a clause of `miss_*`, which leaves out `answer`."""

    verbs: tuple[str, ...]
    frames: tuple[str, ...]
    reply: str
    miss_verbs: tuple[str, ...] = ()
    miss_frames: tuple[str, ...] = ()
    ask: str = ""
    answer: str = ""


PHRASES: dict[str, Phrase] = {
    "add_event": Phrase(
        ("add event {title}", "put down event {title}", "plan event {title}", "write down event {title}"),
        ("{v} on {day}{post}", "on {day}{post} {v}"),
        "event {title} is on {day} now",
        ("add event {title}", "put down event {title}", "plan event {title}"),
        ("{v} in my calendar", "in my calendar {v}"),
        "which day is event {title} on",
        "{day}",
    ),
    "move_event": Phrase(
        ("move {obj}", "shift {obj}", "change {obj}", "push {obj}"),
        ("{v} to {day}", "to {day} {v}"),
        "event {title} is on {day} now",
        ("move {obj}", "shift {obj}", "push {obj}"),
        ("{v} to another day", "to another day {v}"),
        "which day is good for {title}",
        "{day}",
    ),
    "cancel_event": Phrase(
        ("cancel {obj}", "remove {obj}", "call off {obj}", "take out {obj}"),
        ("{v} from my calendar", "in my calendar {v}"),
        "event {title} is removed now",
    ),
    "add_guest": Phrase(
        ("invite {person}", "ask {person}", "bring {person}", "call {person}"),
        ("{v} to {obj}", "for {obj} {v}"),
        "guest {person} comes to {title} now",
        ("invite one more guest", "ask another guest", "bring another guest"),
        ("{v} to {obj}", "for {obj} {v}"),
        "which guest comes to event {title}",
        "{person}",
    ),
    "find_event": Phrase(
        _LOOK,
        ("{v} the day of event {title}", "for event {title} {v} the day"),
        "event {title} is on {day}",
    ),
    "make_file": Phrase(
        ("make file {title}", "create file {title}", "start file {title}", "save a new file {title}"),
        ("{v}{post} for me", "{pre}{v} today"),
        "file {title} is in {folder} now",
    ),
    "move_file": Phrase(
        ("move {obj}", "shift {obj}", "bring {obj}", "carry {obj}"),
        ("{v} to folder {folder}", "to folder {folder} {v}"),
        "file {title} is in {folder} now",
        ("move {obj}", "shift {obj}", "bring {obj}"),
        ("{v} to another folder", "to another folder {v}"),
        "which folder is good for {title}",
        "folder {folder}",
    ),
    "lock_file": Phrase(
        ("lock {obj}", "protect {obj}", "seal {obj}", "close {obj}"),
        ("{v} for me", "to be safe {v}"),
        "file {title} is locked now",
    ),
    "unlock_file": Phrase(
        ("unlock {obj}", "open {obj}", "free {obj}", "release {obj}"),
        ("{v} for me", "for some changes {v}"),
        "file {title} is open now",
    ),
    "delete_file": Phrase(
        ("delete {obj}", "erase {obj}", "destroy {obj}", "throw out {obj}"),
        ("{v} for good", "to save space {v}"),
        "file {title} is removed now",
    ),
    "find_file": Phrase(
        _LOOK,
        ("{v} the folder of file {title}", "for file {title} {v} the folder"),
        "file {title} is in {folder}",
    ),
    "add_product": Phrase(
        ("add {obj}", "put {obj}", "place {obj}", "pack {obj}"),
        ("{v} into the cart", "into the cart {v}"),
        "item {title} is in the cart now",
        ("add {count} of something", "put {count} of something", "pack {count} of something"),
        ("{v} into the cart", "into the cart {v}"),
        "which item for the cart",
        "{title}",
    ),
    "drop_product": Phrase(
        ("drop {title}", "remove {title}", "take {title}", "throw {title}"),
        ("{v} out of the cart", "out of the cart {v}"),
        "item {title} is removed now",
        ("drop something", "remove something", "take something"),
        ("{v} out of the cart", "out of the cart {v}"),
        "which item is not good",
        "{title}",
    ),
    "cart_total": Phrase(
        _LOOK,
        ("{v} the total of the cart", "for the cart {v} the total"),
        "the total is {total} now",
    ),
    "pay_cart": Phrase(
        ("pay the cart", "buy the cart", "pay for the cart", "settle the cart"),
        ("{v}{post} today", "{pre}{v} for me"),
        "the total of {paid} is paid",
    ),
    "find_product": Phrase(
        _LOOK,
        ("{v} the price of {title}", "for {title} {v} the price"),
        "the price of {title} is {price}",
    ),
    "send_message": Phrase(
        ("send the word {text}", "write the word {text}", "mail the word {text}", "give the word {text}"),
        ("{v} to {name}", "to {name} {v}"),
        "the word {text} is sent to {name}",
        ("send a message", "write a message", "mail a message"),
        ("{v} to {name}", "to {name} {v}"),
        "which word for {name} please",
        "the word {text}",
    ),
    "read_message": Phrase(
        ("read the message", "show me the message", "open the message", "check the message"),
        ("{v} from {name}", "from {name} {v}"),
        "the message from {name} is {text}",
    ),
    "forward": Phrase(
        ("forward the message", "send the message", "pass the message", "hand over the message"),
        ("{v} from {name} to {other}", "to {other} {v} from {name}"),
        "the word {text} is sent to {other}",
    ),
    "mute_person": Phrase(
        ("mute {name}", "silence {name}", "hush {name}", "quiet {name}"),
        ("{v}{post} today", "{pre}{v} for me"),
        "person {name} is quiet now",
    ),
    "add_person": Phrase(
        ("save person {name}", "add person {name}", "store person {name}", "keep person {name}"),
        ("{v} with phone {phone}", "with phone {phone} {v}"),
        "person {name} is saved now",
        ("save person {name}", "add person {name}", "store person {name}"),
        ("{v} in my chats", "in my chats {v}"),
        "which phone is from {name}",
        "phone {phone}",
    ),
    "set_heat": Phrase(
        ("set the heat", "turn the heat", "put the heat", "change the heat"),
        ("{v} in the {room} to {degrees}", "in the {room} {v} to {degrees}"),
        "the {room} is at {degrees} now",
        ("set the heat", "turn the heat", "change the heat"),
        ("{v} in the {room}", "in the {room} {v}"),
        "how many degrees for the {room}",
        "{degrees} degrees",
    ),
    "copy_heat": Phrase(
        ("set the heat", "turn the heat", "put the heat", "change the heat"),
        ("{v} in the {room} like the {other}", "like the {other} {v} in the {room}"),
        "the {room} is at {degrees} now",
    ),
    "read_heat": Phrase(
        _LOOK,
        ("{v} the heat of the {room}", "for the {room} {v} the heat"),
        "the {room} is at {degrees}",
    ),
    "light_on": Phrase(
        ("turn on the light", "switch on the light", "put on the light", "bring on the light"),
        ("{v} in the {room}", "in the {room} {v}"),
        "light in the {room} is on",
    ),
    "light_off": Phrase(
        ("turn off the light", "switch off the light", "put off the light", "take off the light"),
        ("{v} in the {room}", "in the {room} {v}"),
        "light in the {room} is off",
    ),
    "play_song": Phrase(
        ("play song {title}", "start song {title}", "put on song {title}", "run song {title}"),
        ("{v}{post} for me", "{pre}{v} today"),
        "song {title} is on now",
    ),
    "set_alarm": Phrase(
        ("set an alarm", "put an alarm", "make an alarm", "plan an alarm"),
        ("{v} at {hour} on {days}", "on {days} {v} at {hour}"),
        "the alarm is at {hour} now",
        ("set an alarm", "put an alarm", "make an alarm"),
        ("{v} on {days}", "on {days} {v}"),
        "which hour for the alarm",
        "hour {hour}",
    ),
    "add_tasks": Phrase(
        ("add {tasks}", "note {tasks}", "write {tasks}", "put {tasks}"),
        ("{v}{post} for me", "{pre}{v} today"),
        "task {title} is on board {board}",
    ),
    "move_task": Phrase(
        ("move {obj}", "shift {obj}", "bring {obj}", "carry {obj}"),
        ("{v} to board {board}", "to board {board} {v}"),
        "task {title} is on board {board}",
        ("move {obj}", "shift {obj}", "bring {obj}"),
        ("{v} to another board", "to another board {v}"),
        "which board is good for {title}",
        "board {board}",
    ),
    "finish_task": Phrase(
        ("finish {obj}", "complete {obj}", "end {obj}", "settle {obj}"),
        ("{v} for today", "as done today {v}"),
        "task {title} is done now",
    ),
    "list_tasks": Phrase(
        _LOOK,
        ("{v} all tasks of board {board}", "for board {board} {v} all tasks"),
        "board {board} has {found}",
    ),
    "find_task": Phrase(
        _LOOK,
        ("{v} the board of task {title}", "for task {title} {v} the board"),
        "task {title} is on board {board}",
    ),
    # What follows belongs to every service: the answer to a question, and turns that need no call.
    "answer": Phrase(
        ("it should be {value}", "i mean {value}", "let us take {value}", "i would like {value}"),
        ("{v} this time please", "oh right then {v}"),
        "",
    ),
    "talk": Phrase(
        ("thank you very much", "that was very kind", "this is really great", "you do good work"),
        ("{v} my friend", "all right then {v}"),
        "you are welcome my friend",
    ),
    "wait": Phrase(
        ("let me think about it", "i need some more time", "i must think again", "give me one more minute"),
        ("{v} before we go on", "wait now {v}"),
        "take all the time you need",
    ),
}

OPENERS = (
    "",
    "please",
    "now",
    "next",
    "can you",
    "please now",
    "could you please",
    "hey please",
    "i want you to",
)


OPENERS += ("i need you to", "now can you please")
CONNECTORS = (" and ", " and then ", " then ", " and also ")


def combinations(verbs: tuple[str, ...], frames: tuple[str, ...], split: str) -> list[str]:
    """The clause templates of one split: held-out combinations for "test", the others for the rest."""
    return [
        frame.replace("{v}", verb)
        for v, verb in enumerate(verbs)
        for f, frame in enumerate(frames)
        if ((v + f) % 3 == 0) == (split == "test")
    ]
