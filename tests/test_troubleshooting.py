"""The error texts that the troubleshooting page quotes are those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bros_sglang.refusals import REFUSALS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^#### `(.+?)`$", PAGE, re.MULTILINE)
HOLE = "…"


def _templates() -> set[str]:
    """Every text in the code, with a hole where a value goes."""
    texts = set()
    for folder in ("bros_sglang", "cli", "memory", "policies", "evals"):
        for path in (ROOT / folder).rglob("*.py"):
            inside: set[int] = set()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else HOLE for p in node.values]
                    inside.update(id(part) for part in node.values)
                    texts.add("".join(map(str, parts)))
                elif (
                    isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside
                ):
                    texts.add(node.value)
    return texts


@pytest.fixture(scope="module")
def templates() -> set[str]:
    return _templates()


def _says(quote: str, template: str) -> bool:
    """Whether a template's text has the quoted pieces, in order; holes may stand for anything."""
    pieces = [re.escape(piece) for piece in quote.split(HOLE)]
    return re.search(".*".join(pieces), template, re.DOTALL) is not None


@pytest.mark.parametrize("quote", QUOTED)
def test_the_text_is_in_the_code(quote: str, templates: set[str]) -> None:
    assert any(_says(quote, template) for template in templates), "no such text in the code any more"


def test_a_text_that_is_nowhere_is_noticed(templates: set[str]) -> None:
    assert len(QUOTED) > 30
    assert not any(_says("… is not supported with --policy horse: …", template) for template in templates)


def test_every_refusal_is_in_the_table() -> None:
    for refusal in REFUSALS:
        assert f"| `{refusal.flag}` | {refusal.reason} |" in PAGE, refusal.flag


def test_links_within_the_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
