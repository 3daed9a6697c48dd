"""A chat template comes with a checkpoint and runs in jinja's sandbox: it renders text, or it is refused in a
sentence. It reads no file and runs no program."""

import pytest
from support.qwen3_chat import save_tokenizer

from pivotrl_jax.chat.template import load_chat
from pivotrl_jax.records import InputError

ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ lipsum.__globals__['os'].popen('touch FILE').read() }}",
    "globals of a class": "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
    "through a message": "{{ messages.append.__self__.__class__.__base__.__subclasses__() }}",
    "through attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "through format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "builtins": "{{ range.__class__.__base__.__subclasses__()[0].__init__.__builtins__ }}",
    "another file": "{% include '/etc/passwd' %}",
    "an import": "{% import 'os' as os %}{{ os.system('touch FILE') }}",
    "what it was given": "{% set _ = messages.clear() %}",
    "a vast loop": "{% for i in range(1000000000) %}x{% endfor %}",
    "no end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "no template": "{% for %}",
    "an error of its own": "{{ raise_exception('no tools here') }}",
    "a division": "{{ 1 // 0 }}",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_template_cannot_leave_its_sandbox(name, tmp_path):
    file = tmp_path / "made"
    checkpoint = save_tokenizer(tmp_path / "checkpoint", ESCAPES[name].replace("FILE", str(file)))
    messages = [{"role": "user", "content": "q"}]
    try:
        text = load_chat(checkpoint, False).render(messages, [])
    except InputError as e:
        text = str(e)
        assert "chat template" in text
    assert not file.exists() and messages == [{"role": "user", "content": "q"}]
    assert not any(word in text for word in ("<class", "root:", "builtins"))
