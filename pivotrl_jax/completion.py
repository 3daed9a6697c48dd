"""Completion of the `pivotrl` command in bash and zsh: programs, their flags, fields of a config, names.

    eval "$(pivotrl completion bash)"     in ~/.bashrc
    eval "$(pivotrl completion zsh)"      in ~/.zshrc, after compinit

The script is complete in itself: pressing Tab starts no Python. Programs and flags are those of the installed
version, so write the line above and not its output into the file. Files complete where nothing else fits.
"""

import argparse
import ast
import re
from collections.abc import Iterable
from pathlib import Path

from pivotrl_jax import terminal
from pivotrl_jax.__main__ import PROGRAMS
from pivotrl_jax.run import configs
from pivotrl_jax.run.options import OPTIONS

PACKAGE = Path(__file__).parent
WITH_CONFIG = ("run/cli.py", "run/hosts.py")  # flags of every program that starts with `cli.start`

# bash splits words at "=", zsh does not: the flag and its value are taken apart from the whole line
SCRIPT = """\
_pivotrl() {
    local line=${COMP_LINE:0:$COMP_POINT} flag words="" fields="@FIELDS@"
    local word=${line##*[[:space:]]}
    if [[ $COMP_CWORD == 1 ]]; then
        words="@PROGRAMS@ --help --version"
    elif [[ $word == -* ]]; then
        case ${COMP_WORDS[1]} in
@FLAGS@
        esac
    fi
    [[ $word == --config.* && $words == *--config* ]] && words=$fields
    flag=${word%%=*}
    if [[ $word == *=* ]]; then
        words=""
        case $flag in
            --config) words="@CONFIGS@" ;;
@VALUES@
        esac
        word=${word#*=}
        [[ -n ${ZSH_VERSION-} && -n $words ]] && words="$flag=${words// / $flag=}" word="$flag=$word"
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[*]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o default -F _pivotrl pivotrl
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def flags_in(files: Iterable[Path]) -> list[str]:
    """The flags that files declare with absl or argparse; those that take a value end in "="."""
    found = []
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text("utf-8")))):
        if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
            continue
        called, name = getattr(node.func, "attr", ""), str(node.args[0].value)
        if called.startswith("DEFINE_"):
            found.append(f"--{name}" + ("" if called.endswith("_bool") else "="))
        elif name.startswith("--") and name[2:].isidentifier():
            switch = any(k.arg == "action" and "store" in ast.unparse(k.value) for k in node.keywords)
            found.append(name + ("" if switch else "="))
    return found


def program_flags(program: str) -> list[str]:
    """The flags of a program, from its source: importing it would load jax."""
    folder = PACKAGE / program
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    if any(re.search(r"^ *cli\.start\(", file.read_text("utf-8"), re.MULTILINE) for file in files):
        files += [PACKAGE / name for name in WITH_CONFIG]
    return [*flags_in(files), "--help"]


def script(shell: str) -> str:
    """What the shell evaluates."""
    flags = (f'            {name}) words="{" ".join(program_flags(name))}" ;;' for name in PROGRAMS)
    fixed = {
        option.name: [value for value in option.rule.choices if isinstance(value, str) and value]
        or ["True", "False"] * isinstance(option.default, bool)
        for option in OPTIONS.values()
    }
    by_values: dict[str, list[str]] = {}
    for name, values in fixed.items():
        if values:
            by_values.setdefault(" ".join(values), []).append(f"--config.{name}")
    values = (f'            {"|".join(names)}) words="{text}" ;;' for text, names in by_values.items())
    filled = {
        "PROGRAMS": " ".join(PROGRAMS),
        "FIELDS": " ".join(f"--config.{name}=" for name in OPTIONS),
        "CONFIGS": " ".join(configs.known()),
        "FLAGS": "\n".join(flags),
        "VALUES": "\n".join(values),
    }
    text = SCRIPT
    for key, value in filled.items():
        text = text.replace(f"@{key}@", value)
    if shell == "zsh":  # cannot be told for one word alone that no space follows it
        text = ZSH + text.replace("complete -o default", "complete -o default -o nospace")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="pivotrl completion",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    print(script(parser.parse_args().shell), end="")


if __name__ == "__main__":
    with terminal.ending("completion"):
        main()
