"""Documents with a few places removed or replaced by something wrong."""

import copy

WRONG = (None, 0, True, "", "x", [], {}, [None], [[]], {"x": 1}, -1.5, "tool", "assistant", "user")


def places(value, path=()):
    yield path
    for key, child in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(child, (*path, key))


def damaged(rng, document):
    """The document with one to three places removed or replaced."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice([1, 1, 2, 3])):
        path = rng.choice(list(places(document))[1:] or [()])
        at = document
        for key in path[:-1]:
            at = at[key]
        if not path:
            continue
        if rng.random() < 0.3:
            del at[path[-1]]
        elif rng.random() < 0.1 and isinstance(at[path[-1]], str):
            at[path[-1]] = at[path[-1]][: len(at[path[-1]]) // 2]
        else:
            at[path[-1]] = copy.deepcopy(rng.choice(WRONG))
    return document
