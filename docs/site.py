"""Pages of the documentation site that live at the top of the repository, where a forge shows them.

Their links are relative to the repository; on the site, docs/ is the root.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
SOURCE = "https://github.com/storefusion/storefusion/blob/main/"


def on_files(files: Files, config: object) -> Files:
    """Add the pages, with their links rewritten."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"(\]\()([^)#:]+)", _on_the_site, text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links of pages in docs/ that leave it: to a page of the table above, else to the source."""
    return re.sub(r"(\]\()\.\./([^)#:]+)", _on_the_site, markdown)


def _on_the_site(link: re.Match[str]) -> str:
    target = link[2]
    if target in PAGES:
        return f"{link[1]}{PAGES[target]}"
    if target.startswith("docs/"):
        return f"{link[1]}{target.removeprefix('docs/')}"
    return f"{link[1]}{SOURCE}{target}" if (ROOT / target).exists() else link[0]
