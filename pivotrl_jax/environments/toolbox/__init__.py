"""The toolbox world: six small services, scripted users and an expert, in BFCL's row format.

`rows("train", 200, seed=0)` writes rows; `row(id)` writes one again from its id alone. The splits "pretrain",
"train" and "test" share functions and closed sets (days, rooms) but no value words, and "test" combines verb
phrases and sentence frames that the others never combine.
"""

import re

from pivotrl_jax.environments.toolbox import phrases, values
from pivotrl_jax.environments.toolbox.demonstrations import STYLES, demonstrate
from pivotrl_jax.environments.toolbox.docs import DOCS
from pivotrl_jax.environments.toolbox.services import BACKENDS
from pivotrl_jax.environments.toolbox.users import row, rows

__all__ = ["BACKENDS", "DOCS", "STYLES", "all_words", "demonstrate", "find_row", "row", "rows"]


find_row = row  # the name that `environments.find_row` looks for


# In results and errors, and nowhere else.
_RESULT_WORDS = """
    error no such exists wrong value event file item product person phone message room board task tasks moved
    removed guest locked total paid sent saved muted degrees song alarm done text name price hour day folder
    true false"""


def all_words() -> list[str]:
    """Every word of the rows, sorted: templates, functions, parameters, results, values of all splits."""
    texts = [_RESULT_WORDS, *phrases.OPENERS, *phrases.CONNECTORS]
    for phrase in phrases.PHRASES.values():
        texts += [*phrase.verbs, *phrase.frames, *phrase.miss_verbs, *phrase.miss_frames]
        texts += [phrase.reply, phrase.ask, phrase.answer]
    texts = [re.sub(r"\{\w+\}", " ", text) for text in texts]
    texts += [" in folder on board with the card for hours at it and"]  # optional values, names of things
    for doc in (doc for docs in DOCS.values() for doc in docs):
        properties = doc["parameters"]["properties"]
        texts += [doc["name"].replace("_", " "), doc["description"]]
        texts += [f"{key} {value['type']}" for key, value in properties.items()]
    texts += [word for splits in values.WORDS.values() for words in splits.values() for word in words]
    texts += [*values.DAYS, *values.ROOMS, *values.PLACES, *values.CARDS]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text)})
