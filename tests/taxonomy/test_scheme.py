"""The taxonomy file: content, checks, hash."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from crossdiff.taxonomy.scheme import (
    PAPER,
    PaperTaxonomy,
    Taxonomy,
    TaxonomyFile,
    extended,
    load_taxonomy,
    parse_taxonomy,
)


@pytest.fixture
def content() -> dict:
    return yaml.safe_load(PAPER.read_text(encoding="utf-8"))


def test_the_paper_taxonomy_has_seven_classes_and_thirty_categories() -> None:
    taxonomy = PaperTaxonomy().load()
    assert len(taxonomy.classes) == 7
    assert len(taxonomy.categories) == 30
    assert "reconstructed" in taxonomy.provenance
    assert taxonomy.parent("hallucination_detection") == "information_verification"
    assert taxonomy.parent("other") is None


def test_cue_words_are_plenty_lower_case_and_belong_to_one_category() -> None:
    categories = PaperTaxonomy().load().categories
    assert all(len(category.cues) >= 12 for category in categories)
    counts = Counter(cue for category in categories for cue in category.cues)
    assert [cue for cue, count in counts.items() if count > 1] == []
    assert all(cue.isalpha() and cue == cue.lower() for cue in counts)


def test_the_hash_follows_the_content_and_survives_a_round_trip(tmp_path: Path, content: dict) -> None:
    taxonomy = PaperTaxonomy().load()
    copy = tmp_path / "copy.yaml"
    copy.write_text(taxonomy.to_yaml(), encoding="utf-8")
    assert load_taxonomy(copy).hash == taxonomy.hash
    assert TaxonomyFile(path=copy).identity()["hash"] == PaperTaxonomy().identity()["hash"]
    content["classes"][0]["categories"][0]["definition"] += "!"
    assert parse_taxonomy(content, where="edited").hash != taxonomy.hash


def test_a_frozen_file_that_was_edited_is_refused(tmp_path: Path) -> None:
    edited = tmp_path / "taxonomy.yaml"
    edited.write_text(PaperTaxonomy().load().to_yaml().replace("Declining", "Refusing"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"was changed.*assign all latents again"):
        load_taxonomy(edited)


def _duplicate_category(content: dict) -> None:
    content["classes"][1]["categories"][0]["name"] = content["classes"][0]["categories"][0]["name"]


def _empty_class(content: dict) -> None:
    content["classes"][2]["categories"] = []


def _empty_definition(content: dict) -> None:
    content["classes"][2]["categories"][0]["definition"] = "  "


def _reserved(content: dict) -> None:
    content["classes"][2]["categories"][0]["name"] = "other"


def _unknown_key(content: dict) -> None:
    content["classes"][2]["categories"][0]["definitoin"] = "typo"


def _no_classes(content: dict) -> None:
    content["classes"] = []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_duplicate_category, "more than once"),
        (_empty_class, "has no category"),
        (_empty_definition, "empty name or definition"),
        (_reserved, "always allowed"),
        (_unknown_key, "definitoin"),
        (_no_classes, "no classes"),
    ],
)
def test_a_spoiled_taxonomy_is_refused_with_the_reason(content: dict, spoil, message: str) -> None:
    spoil(content)
    with pytest.raises(ValueError, match=message):
        parse_taxonomy(content, where="spoiled")


def test_missing_and_unreadable_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not exist.*taxonomy=paper"):
        load_taxonomy(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("classes: [", encoding="utf-8")
    with pytest.raises(ValueError, match="not readable YAML"):
        load_taxonomy(broken)
    broken.write_text("- 1", encoding="utf-8")
    with pytest.raises(ValueError, match="must be a mapping"):
        load_taxonomy(broken)


def test_a_taxonomy_is_frozen() -> None:
    taxonomy: Taxonomy = PaperTaxonomy().load()
    with pytest.raises(ValueError, match="frozen"):
        taxonomy.name = "other name"  # type: ignore[misc]


TAXONOMY = PaperTaxonomy().load()


def proposed(*names: str) -> dict:
    categories = [
        {"name": name, "title": name, "definition": f"On {name}.", "cues": [name]} for name in names
    ]
    return {"classes": [{"name": "x", "title": "X", "categories": categories}]}


def test_new_categories_come_in_a_class_of_their_own_up_to_the_limit() -> None:
    found = extended(TAXONOMY, proposed("translation", "gardens", "other", "trains", "ships"), n_new=2)
    assert [category.name for category in found.classes[-1].categories] == ["gardens", "trains"]
    assert found.classes[:-1] == TAXONOMY.classes
    assert found.hash != TAXONOMY.hash
    again = extended(found, proposed("ships"), n_new=2)
    assert len({group.name for group in again.classes}) == len(again.classes)


def test_nothing_new_is_an_error() -> None:
    with pytest.raises(ValueError, match="already has all"):
        extended(TAXONOMY, proposed("translation", "uninterpretable"), n_new=2)
