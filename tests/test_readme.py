"""README and docs tell the truth: README's Python runs, and commands and files they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from muzero_agent import zoo
from muzero_agent.cli_zoo import in_short

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]


def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = Sybil(parsers=[PythonCodeBlockParser()]).parse(README)
    examples = list(document.examples())
    assert examples
    for example in examples:  # one test, since later blocks use the names of earlier ones
        example.evaluate()


def test_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", README.read_text(encoding="utf-8")))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = set(re.findall(r"\]\(([^)#:]+)[#)]", text))
    named = set(re.findall(r"(?<![\w/.])(?:benchmarks|examples|docs|tests)/[\w/.-]*\w", text))
    assert links | named
    assert [name for name in sorted(links) if not (document.parent / name).exists()] == []
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_sections_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for name, section in re.findall(r"\]\(([^):]*)#([^)]+)\)", text):
        target = document.parent / name if name else document
        titles = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert section in anchors, f"{document.name} links to {name}#{section}"


def test_the_table_of_models_is_that_of_their_cards() -> None:
    """To write it anew: the rows that are missing are what this test shows."""
    text = README.read_text(encoding="utf-8")
    rows = [
        f"| `{entry.name}` | {entry.env} | {'; '.join(map(in_short, entry.evaluations))} |"
        for entry in zoo.available()
    ]
    assert [row for row in rows if row not in text] == []
