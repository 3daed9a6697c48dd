"""Function docs of the toolbox services in BFCL's form, written as one signature per line.

`DOCS[service]` is a list of five `{"name", "description", "parameters"}` docs. Tasks share these objects, so
do not modify them.
"""

import json
import re

_SIGNATURES = {
    "Calendar": """
        find_event(title: string) # look up an event by title
        add_event(title: string, day: string, hour: integer = 9) # put a new event on a day
        move_event(event: integer, day: string) # move an event to another day
        cancel_event(event: integer) # remove an event
        add_guest(event: integer, person: string) # invite a person to an event""",
    "Files": """
        find_file(name: string) # look up a file by name
        make_file(name: string, folder: string = "home") # create a new file in a folder
        move_file(file: integer, folder: string) # move a file to another folder
        lock_file(file: integer, locked: boolean = true) # lock or unlock a file
        delete_file(file: integer) # erase a file""",
    "Cart": """
        find_product(item: string) # look up product and price of an item
        add_product(product: integer, count: integer = 1) # put a product into the cart
        drop_product(product: integer) # take a product out of the cart
        cart_total() # get the total price of the cart
        pay_cart(card: string = "silver") # pay the cart with a card""",
    "Chats": """
        find_person(name: string) # look up the phone of a person
        add_person(name: string, phone: integer) # save a new person with a phone
        send_message(phone: integer, text: string) # send a word to a phone
        read_message(name: string) # read the message from a person
        mute_person(phone: integer, hours: integer = 8) # mute a phone for some hours""",
    "Home": """
        read_heat(room: string) # get the heat of a room
        set_heat(room: string, degrees: integer) # set the heat of a room
        set_light(room: string, on: boolean = true) # turn a light on or off
        play_song(title: string, room: string = "kitchen") # play a song in a room
        set_alarm(hour: integer, days: array) # set an alarm on some days""",
    "Tasks": """
        find_task(title: string) # look up a task by title
        add_tasks(titles: array, board: string = "home") # put new tasks on a board
        move_task(task: integer, board: string) # move a task to another board
        finish_task(task: integer) # mark a task as done
        list_tasks(board: string) # get all tasks of a board""",
}


def _doc(line: str) -> dict:
    name, parameters, description = re.fullmatch(r"(\w+)\((.*)\) # (.*)", line.strip()).groups()
    properties, required = {}, []
    for parameter in filter(None, parameters.split(", ")):
        key, kind, default = re.fullmatch(r"(\w+): (\w+)(?: = (.*))?", parameter).groups()
        properties[key] = {"type": kind}
        if kind == "array":
            properties[key]["items"] = {"type": "string"}
        if default is None:
            required.append(key)
        else:
            properties[key]["default"] = json.loads(default)
    parameters = {"type": "dict", "properties": properties, "required": required}
    return {"name": name, "description": description, "parameters": parameters}


DOCS: dict[str, list[dict]] = {
    service: [_doc(line) for line in text.strip().splitlines()] for service, text in _SIGNATURES.items()
}


# function -> its parameters in the order of the signature -> the default (None: required)
DEFAULTS: dict[str, dict] = {
    doc["name"]: {key: value.get("default") for key, value in doc["parameters"]["properties"].items()}
    for docs in DOCS.values()
    for doc in docs
}
