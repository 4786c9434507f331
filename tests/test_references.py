"""What docstrings, comments and pages refer to exists: pages, their numbered sections, links, files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "src" / "crossdiff" / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "experiments").glob("*/README.md"))]
CODE = sorted(
    [*(ROOT / "src").rglob("*.py"), *(ROOT / "experiments").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CODE, ids=name)
def test_pages_that_the_code_refers_to_exist(path: Path) -> None:
    text = " ".join(path.read_text(encoding="utf-8").split())
    mentioned = re.findall(r"(?<![\w/])(?:docs/)?([a-z_]+)\.md(?: section (\d+))?", text)
    missing = [
        f"{page}.md section {section}" if section else f"{page}.md"
        for page, section in mentioned
        if not (DOCS / f"{page}.md").is_file()
        or (section and not re.search(rf"^## {section}\. ", (DOCS / f"{page}.md").read_text(), re.M))
    ]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_of_the_pages_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_files_that_the_pages_name_exist(path: Path) -> None:
    named = re.findall(
        r"`((?:tests|experiments|conf|slurm|src)/[\w./-]+\.\w+)`", path.read_text(encoding="utf-8")
    )
    own = {"slurm/mylab.yaml"}  # the reader's
    assert [file for file in named if file not in own and not (ROOT / file).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_modules_that_the_pages_name_exist(path: Path) -> None:
    rooms = "|".join(sorted(p.name for p in (ROOT / "src" / "crossdiff").iterdir() if p.is_dir()))
    named = re.findall(rf"`((?:{rooms})/[\w./-]+\.(?:py|yaml))`", path.read_text(encoding="utf-8"))
    assert [file for file in named if not (ROOT / "src" / "crossdiff" / file).exists()] == []
