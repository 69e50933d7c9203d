"""Hooks of mkdocs.yml: the pages beside `docs/` and the examples belong to the site, too."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = ("THREAT_MODEL.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
_LINK = re.compile(
    r"(?P<text>\[[^\]\n]*\])\((?P<target>(?!https?:|#)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """The site has the pages beside `docs/`, and the examples as files."""
    for name in BESIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = str(path.relative_to(ROOT))
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Links lead to the place that their target has in the site."""
    name = page.file.src_uri
    is_beside = name in BESIDE or name.startswith("examples/")
    source = PurePosixPath(name if is_beside else f"docs/{name}").parent

    def moved(found: re.Match[str]) -> str:
        target = normpath(str(source / found["target"]))
        if (ROOT / target).is_dir() or target == "README.md":
            return found["text"][1:-1]  # a site has no page for it
        place = target.removeprefix("docs/")
        here = str(PurePosixPath(name).parent)
        return f"{found['text']}({relpath(place, here)}{found['anchor'] or ''})"

    return _LINK.sub(moved, markdown)
