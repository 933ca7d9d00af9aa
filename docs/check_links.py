"""Check that every relative link in the project's Markdown pages leads to a file.

Run as ``python docs/check_links.py``; prints each broken link and exits with 1 if there is one.
Links to other sites are left alone: the check works offline.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", "bundles/*/docs/*.md", "apps/**/*.md")
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def find_broken_links(page: Path) -> Iterator[str]:
    """Yield the relative link targets of `page` that do not exist."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        path = target.partition("#")[0]
        if path and ":" not in path and not (page.parent / path).exists():
            yield target


def main() -> int:
    """Check all pages; return the exit status."""
    pages = sorted({page for pattern in PAGES for page in ROOT.glob(pattern)})
    broken = [(page, link) for page in pages for link in find_broken_links(page)]
    for page, link in broken:
        print(f"{page.relative_to(ROOT)}: no such file: {link}")
    print(f"{len(pages)} pages checked, {len(broken)} broken links")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
