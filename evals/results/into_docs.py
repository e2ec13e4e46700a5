"""Put text between two comments of a page: `<!-- NAME: … -->` and `<!-- end of NAME -->`."""

import re
from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Replace what stands between the comments; SystemExit where the page has none."""
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise SystemExit(f"{page} has no place for {name}")
    new = pattern.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[3]}", old)
    page.write_text(new, encoding="utf-8")
