"""Servers: one with the embedded checkpoint, and one whose completions a test writes."""

import pytest
from support.served import KEY, Script, make_service, serving

from pivotrl_jax.chat import template
from pivotrl_jax.checkpoints import locate
from pivotrl_jax.serve.app import Options, Service
from pivotrl_jax.serve.requests import Limits


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """The embedded checkpoint behind a server with an API key."""
    file = tmp_path_factory.mktemp("key") / "key"
    file.write_text(KEY + "\n")
    with serving(make_service(f"--api_key_file={file}")) as it:
        yield it


@pytest.fixture(scope="session")
def chat():
    return template.load_chat(locate.EMBEDDED, False)


@pytest.fixture(scope="session")
def _scripted(chat):
    limits = Limits("written", 4096, 4000, completion_tokens=2048, vocabulary=1664, choices=8)
    with serving(Service(Script, chat, limits, Options(KEY, 200_000), "0123456789abcdef")) as it:
        yield it


@pytest.fixture
def scripted(_scripted):
    """A server whose engine is a `Script`."""
    engine = _scripted.engine
    engine.__init__(engine.deliver)
    return _scripted
