"""Notebooks from the scripts beside this file: `python notebooks/build.py`

    python notebooks/build.py                                write the .ipynb files
    python notebooks/build.py --execute pivotrl_cpu ...      run them; HTML with outputs in runs/notebooks/

A script in jupytext's percent form is the source; its notebook is committed without outputs, so that both
diff. The builder puts two cells before the script's own: the badge, and the installation. Needs
`pip install -e '.[notebooks]'`.
"""

import argparse
from pathlib import Path

import jupytext
import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REPOSITORY = "OWNER/pivotrl_jax"  # on github.com; the only place that names it
WORKDIR = ROOT  # in which notebooks run
OUT = ROOT / "runs" / "notebooks"

EXTRAS = {  # notebook -> the extras that it installs
    "pivotrl_cpu": "",
    "theorem_3_2": "",
    "colab_gpu": "cuda12,serve",
    "colab_tpu": "tpu,serve",
}

BADGE = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb)
"""

INSTALL = """\
# Installs pivotrl_jax where it is missing (Colab), and does nothing where it is there
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("pivotrl_jax") is None:
    subprocess.run(["git", "clone", "--depth=1", "https://github.com/{repository}"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "./pivotrl_jax{extras}"], check=True){data}
    importlib.invalidate_caches()
"""

# BFCL's own package pins libraries that it does not need here
DATA = """
    bfcl = ["--no-deps", "bfcl-eval==2026.3.23", "mpmath==1.3.0"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *bfcl], check=True)"""

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(name: str) -> nbformat.NotebookNode:
    """The notebook of a script. It depends on the script and this file alone."""
    source = jupytext.read(HERE / f"{name}.py", fmt="py:percent")
    extras, data = EXTRAS[name], DATA if name.startswith("colab") else ""
    install = INSTALL.format(repository=REPOSITORY, extras=f"[{extras}]" if extras else "", data=data)
    cells = [
        nbformat.v4.new_markdown_cell(BADGE.format(repository=REPOSITORY, name=name).rstrip()),
        nbformat.v4.new_code_cell(install.rstrip()),
        *source.cells,
    ]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # jupytext draws them at random
        cell["metadata"] = {}
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    if name == "colab_gpu":
        metadata |= {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
    if name == "colab_tpu":
        metadata |= {"accelerator": "TPU", "colab": {"gpuType": "V5E1"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def text_of(name: str) -> str:
    """The text of a notebook's file."""
    return nbformat.writes(notebook(name)) + "\n"


def execute(name: str, timeout: int = 3600) -> Path:
    """Run a notebook from the project's root; returns the page with its outputs, in OUT. Raises
    nbclient.exceptions.CellExecutionError for a cell that fails."""
    import nbclient
    from nbconvert import HTMLExporter

    page = notebook(name)
    nbclient.NotebookClient(page, timeout=timeout, resources={"metadata": {"path": str(WORKDIR)}}).execute()
    OUT.mkdir(parents=True, exist_ok=True)
    nbformat.write(page, OUT / f"{name}.ipynb")
    html, _ = HTMLExporter().from_notebook_node(page)
    file = OUT / f"{name}.html"
    file.write_text(html, "utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", nargs="+", choices=EXTRAS, default=[], help="run these")
    for name in (chosen := parser.parse_args().execute):
        print(execute(name), flush=True)
    for name in EXTRAS if not chosen else ():
        (HERE / f"{name}.ipynb").write_text(text_of(name), "utf-8")


if __name__ == "__main__":
    main()
