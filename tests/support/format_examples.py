"""The smallest example of each format, from docs/formats.md."""

import re

from support.paths import ROOT

PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")


def _examples():
    """(format, text) of every block under a heading in the section of examples."""
    section = PAGE.partition("## The smallest example of each")[2].partition("\n## ")[0]
    for part in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
        name, _, body = part.partition("\n")
        for text in re.findall(r"^```json\n(.*?)^```", body, re.MULTILINE | re.DOTALL):
            yield name.strip(), text


EXAMPLES = list(_examples())
