"""The taxonomy: classes, categories, definitions and cue words, frozen by a content hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from crossdiff.settings import Settings

OTHER = "other"
UNINTERPRETABLE = "uninterpretable"
RESERVED = (OTHER, UNINTERPRETABLE)
EXTENSION = "extension"
"""The class of the categories that `extended` adds."""
PAPER = Path(__file__).with_name("paper.yaml")

Signal = Literal["code", "markup", "foreign_script", "numbers", "template"]


class Category(Settings):
    """One answer that the annotator may give.

    `cues` are lower-case words that indicate the category; `signals` name properties of a text other than its
    words (annotation.signals).
    """

    name: str
    title: str
    definition: str
    cues: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = ()


class TaxonomyClass(Settings):
    """A class: the level at which changes are tested together (max-T)."""

    name: str
    title: str
    categories: tuple[Category, ...]


class Taxonomy(Settings):
    """Classes and their categories; equal content has an equal `hash`."""

    version: Literal[1] = 1
    name: str
    provenance: str
    classes: tuple[TaxonomyClass, ...]

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the sha256 over the content; part of every assignment's identity."""
        payload = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(payload.encode()).hexdigest()[:16]

    @property
    def categories(self) -> tuple[Category, ...]:
        """All categories, in the order of the file."""
        return tuple(category for group in self.classes for category in group.categories)

    @cached_property
    def parents(self) -> dict[str, str]:
        """Category name -> class name."""
        return {category.name: group.name for group in self.classes for category in group.categories}

    def parent(self, category: str | None) -> str | None:
        """Class of a category; None for `other`, `uninterpretable` and no answer."""
        return None if category is None else self.parents.get(category)

    def to_yaml(self) -> str:
        """The file content, with the hash beside it."""
        import yaml

        content = {"hash": self.hash, **self.model_dump(mode="json")}
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def load_taxonomy(path: Path) -> Taxonomy:
    """Read and check a taxonomy file; a recorded `hash` must match the content."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"taxonomy file {path} does not exist; give an existing YAML file or use taxonomy=paper"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"taxonomy file {path} is not readable YAML: {error}; see taxonomy/paper.yaml"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"taxonomy file {path} must be a mapping with `name`, `provenance`, `classes`")
    recorded = content.pop("hash", None)
    taxonomy = parse_taxonomy(content, where=str(path))
    if recorded is not None and recorded != taxonomy.hash:
        raise ValueError(
            f"taxonomy file {path} was changed: it records hash {recorded}, its content has {taxonomy.hash}; "
            "a changed taxonomy is a new one: remove the `hash` line and assign all latents again"
        )
    return taxonomy


def parse_taxonomy(content: dict[str, Any], *, where: str) -> Taxonomy:
    """The taxonomy of plain data; ValueError for one that cannot be assigned or counted."""
    try:
        taxonomy = Taxonomy.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(
            f"{where}: {place}: {first['msg']} (got {str(first.get('input'))[:60]!r}); "
            "the form is that of src/crossdiff/taxonomy/paper.yaml"
        ) from None
    check(taxonomy, where=where)
    return taxonomy


def check(taxonomy: Taxonomy, *, where: str) -> None:
    """Refuse empty classes, nameless or undefined categories, repeated names and reserved names."""
    if not taxonomy.classes:
        raise ValueError(f"{where} has no classes; a taxonomy needs at least one class with one category")
    for group in taxonomy.classes:
        if not group.categories:
            raise ValueError(f"{where}: class {group.name!r} has no category; remove it or give it one")
    names = [category.name for category in taxonomy.categories]
    _refuse_repeats(names, where=where, what="category")
    _refuse_repeats([group.name for group in taxonomy.classes], where=where, what="class")
    for category in taxonomy.categories:
        if not category.name.strip() or not category.definition.strip():
            raise ValueError(
                f"{where}: category {category.name!r} has an empty name or definition; "
                "annotators assign by definition, so every category needs both"
            )
        if category.name in RESERVED:
            raise ValueError(
                f"{where}: {category.name!r} is always allowed as an answer; choose another name"
            )


def _refuse_repeats(names: Iterable[str], *, where: str, what: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{where}: {what} {repeated[0]!r} is there more than once; names must be unique")


def extended(taxonomy: Taxonomy, content: Mapping[str, Any], *, n_new: int) -> Taxonomy:
    """`taxonomy` and at most `n_new` categories of an induced one's `classes`, in a class of their own.

    Categories whose name is taken are left out; the old taxonomy is unchanged.
    """
    taken = {*taxonomy.parents, *RESERVED}
    proposed = [category for group in content["classes"] for category in group["categories"]]
    new = [category for category in proposed if category["name"] not in taken][:n_new]
    if not new:
        raise ValueError(f"taxonomy {taxonomy.name!r} already has all {len(proposed)} proposed categories")
    plain = taxonomy.model_dump(mode="json")
    name = EXTENSION
    while name in {group.name for group in taxonomy.classes}:
        name += "_2"
    plain["name"] = f"{taxonomy.name} extended"
    plain["provenance"] = f"{taxonomy.provenance}; extended from hash {taxonomy.hash}"
    plain["classes"].append({"name": name, "title": "Extension", "categories": new})
    return parse_taxonomy(plain, where="extended taxonomy")


class PaperTaxonomy(Settings):
    """`taxonomy=paper`: 7 classes and 30 categories, reconstructed from the paper."""

    def load(self) -> Taxonomy:
        """The shipped taxonomy."""
        return _paper()

    def identity(self) -> dict[str, Any]:
        """Holds the content hash, so an edited file makes new keys."""
        return {**super().identity(), "hash": self.load().hash}


@cache
def _paper() -> Taxonomy:
    return load_taxonomy(PAPER)


class TaxonomyFile(Settings):
    """`taxonomy=file taxonomy.path=...`: the user's taxonomy."""

    path: Path

    def load(self) -> Taxonomy:
        """The taxonomy in `path`."""
        return load_taxonomy(self.path)

    def identity(self) -> dict[str, Any]:
        """The content, without the path."""
        return {"settings": type(self).__name__, "hash": self.load().hash}


class InducedTaxonomy(Settings):
    """`taxonomy=induced`: categories induced once from the blind, shuffled descriptions, then frozen.

    `n_shuffles` independent inductions over differently ordered descriptions are merged into at most
    `n_classes` classes of at most `n_categories` categories in all.
    """

    n_shuffles: int = 3
    n_classes: int = 7
    n_categories: int = 30


TaxonomySettings = PaperTaxonomy | TaxonomyFile | InducedTaxonomy
