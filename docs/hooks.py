"""Puts the pages of experiments/ into the site; their links work in the site and on a code host."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]


def on_files(files, config):
    for page in sorted([*ROOT.glob("experiments/*.md"), *ROOT.glob("experiments/*/README.md")]):
        if not page.name.endswith(".in.md"):
            _add(files, config, page)
    for kind in ("png", "svg"):
        for picture in sorted(ROOT.glob(f"experiments/*/*.{kind}")):
            _add(files, config, picture)
    return files


def _add(files, config, path: Path) -> None:
    where = str(path.relative_to(ROOT))
    files.append(File.generated(config, where, abs_src_path=str(path)))


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri.startswith("experiments/"):
        return markdown.replace("../../docs/", "../../").replace("](../docs/", "](../")
    return markdown.replace("](../experiments/", "](experiments/")
