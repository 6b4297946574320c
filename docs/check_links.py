"""Check that every relative link in the Markdown files leads to a file; exit code 1 if one does not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def dead_links(page: Path) -> list[str]:
    """Return the links of `page` that lead nowhere."""
    return [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]


def main() -> int:
    """Check the pages that git knows."""
    listed = subprocess.run(["git", "ls-files", "*.md"], check=True, capture_output=True, text=True).stdout.split()
    dead = [f"{page}: {link}" for page in listed for link in dead_links(Path(page))]
    print("\n".join(dead) or f"{len(listed)} pages, every link leads somewhere")
    return bool(dead)


if __name__ == "__main__":
    sys.exit(main())
