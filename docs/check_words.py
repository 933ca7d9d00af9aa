"""Check that words which readers of the field would stumble over do not come back.

Run as ``python docs/check_words.py``; prints each line with such a word and the word to take
instead, and exits with 1 if there is one. Reports of measurements and the history stay as written.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "*.md", "docs/**/*.md", "bundles/*/docs/*.md", "bundles/*/configs/*.json", "apps/**/*",
    "src/**/*.py", "src/**/*.j2", "benchmarks/**/*.py", "Makefile",
)  # fmt: skip
LEFT_OUT = ("CHANGELOG.md", "docs/results/*", "docs/decisions/*")
INSTEAD = {
    r"knobs?": "option",
    r"told": "predicted (a class), or read from, recognised, given",
    r"(?<!\")floors?(?! ?\()": "baseline (a method to compare with), lower bound (of time)",
    r"laws?": "property, invariant",
    r"preflight|(?<!\")doctor": "check",  # the command keeps its earlier name as another one
    r"oracles?": "reference implementation, upper bound",
    r"verdicts?": "conclusion",
    r"glossary": "terms",
    r"agenda": "tasks, plan",
    r"for want of": "without, as there is no",
    r"at the door": "on input",
    r"hangs? on": "depends on",
    r"wanting": "missing",
}
FORBIDDEN = re.compile(
    r"(?<![\w.])(?:" + "|".join(f"({word})" for word in INSTEAD) + r")(?!\w)", re.IGNORECASE
)


def main() -> int:
    """Check all files; return the exit status."""
    pages = {path for pattern in PAGES for path in ROOT.glob(pattern) if path.is_file()}
    pages -= {path for pattern in LEFT_OUT for path in ROOT.glob(pattern)}
    found = 0
    for page in sorted(pages):
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            for match in FORBIDDEN.finditer(line):
                instead = list(INSTEAD.values())[(match.lastindex or 1) - 1]
                print(f"{page.relative_to(ROOT)}:{number}: '{match[0]}'; better: {instead}")
                found += 1
    print(f"{len(pages)} files checked, {found} words to replace")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
