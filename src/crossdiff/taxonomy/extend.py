"""A frozen taxonomy with more categories: a new taxonomy with a new hash, so that all is assigned anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crossdiff.taxonomy.scheme import RESERVED, Taxonomy, parse_taxonomy

CLASS = "extension"


def extended(taxonomy: Taxonomy, content: Mapping[str, Any], *, n_new: int) -> Taxonomy:
    """`taxonomy` and at most `n_new` categories of an induced one's `classes`, in a class of their own.

    Categories whose name is taken are left out; nothing of the old taxonomy is changed.
    """
    taken = {*taxonomy.parents, *RESERVED}
    found = [category for group in content["classes"] for category in group["categories"]]
    new = [category for category in found if category["name"] not in taken][:n_new]
    if not new:
        raise ValueError(
            f"nothing to extend taxonomy {taxonomy.name!r} by: all {len(found)} proposed categories are in it"
        )
    plain = taxonomy.model_dump(mode="json")
    name = CLASS
    while name in {group.name for group in taxonomy.classes}:
        name += "_2"
    plain["name"] = f"{taxonomy.name} extended"
    plain["provenance"] = f"{taxonomy.provenance}; extended from hash {taxonomy.hash}"
    plain["classes"].append({"name": name, "title": "Extension", "categories": new})
    return parse_taxonomy(plain, where="extended taxonomy")
