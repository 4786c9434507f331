"""No module that labels latents may know what was planted."""

from pathlib import Path

import pytest

import crossdiff

SOURCE = Path(next(iter(crossdiff.__path__)))
TRUTH = ("planted.json", "document_categories", "rates.json", "organisms", "CATEGORY_WORDS")
MODULES = sorted([*(SOURCE / "annotation").rglob("*.py"), *(SOURCE / "taxonomy").rglob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_annotation_and_taxonomy_never_name_planted_truth(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not [name for name in TRUTH if name in source]


def test_the_annotate_stage_never_names_planted_truth() -> None:
    source = (SOURCE / "stages" / "annotate.py").read_text(encoding="utf-8")
    assert not [name for name in TRUTH if name in source]
