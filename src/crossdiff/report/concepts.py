"""Recurring concepts, on which several crosscoders of one pair agree, for explorer and pair section."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from crossdiff.core.latent_table import BASE, TUNED
from crossdiff.core.recurrence import MIN_COSINE, mean_mcc, recurrence
from crossdiff.io.tables import where
from crossdiff.report import tables
from crossdiff.report.explorer import directions, weights_of
from crossdiff.report.formatting import told
from crossdiff.report.sources import PairSource

ROLES = {"exclusive_tuned": TUNED, "exclusive_base": BASE}
MAX_SHARED = 1024
"""Most shared latents for which PW-MCC, in cubic time, is computed."""

Concepts = dict[tuple[str, int], dict[str, Any]]
"""(crosscoder, latent) -> `found`, `recurs`, `lead` and `twins` of the index."""


def concepts(crosscoders: Sequence[PairSource]) -> Concepts:
    """Concepts of the listed exclusive latents of a pair's crosscoders; empty unless there are several.

    `lead` marks the recurring latent of a concept with the most energy, its best example.
    """
    readable = [one for one in crosscoders if weights_of(one) is not None]
    if len(crosscoders) < 2 or len(readable) < 2:
        return {}
    all_concepts: Concepts = {}
    for role, model in ROLES.items():
        listed = [[e for e in one.selected() if e["role"] == role] for one in readable]
        width = directions(readable[0], [0], model=model)[:0]
        members = [
            directions(one, [int(e["latent"]) for e in entries], model=model) if entries else width
            for one, entries in zip(readable, listed, strict=True)
        ]
        all_concepts |= _of_role(readable, listed, recurrence(members), role)
    return all_concepts


def _of_role(
    crosscoders: Sequence[PairSource], listed: Sequence[Sequence[dict[str, Any]]], known: Any, role: str
) -> Concepts:
    of_role: Concepts = {}
    groups: dict[int, list[tuple[bool, float, tuple[str, int]]]] = {}
    holders: dict[int, set[str]] = {}
    for one, entries, known_here in zip(crosscoders, listed, known, strict=True):
        energies = one.energies(role.removeprefix("exclusive_"))
        for entry, recurring in zip(entries, known_here, strict=True):
            key = (one.name, int(entry["latent"]))
            energy = energies[key[1]]
            groups.setdefault(recurring.concept, []).append(
                (recurring.recurs, energy if math.isfinite(energy) else 0.0, key)
            )
            holders.setdefault(recurring.concept, set()).add(one.name)
            twins = [
                {
                    "pair": crosscoders[member].name,
                    "latent": int(listed[member][place]["latent"]),
                    "cosine": round(cosine, 3),
                }
                for member, place, cosine in recurring.twins
            ]
            text = f"{1 + len(twins)} of {len(crosscoders)}"
            of_role[key] = {"found": text, "recurs": recurring.recurs, "lead": False, "twins": twins}
    for group in groups.values():
        recurs, _, key = max(group)
        of_role[key]["lead"] = recurs
    return of_role


def block(crosscoders: Sequence[PairSource], known: Concepts) -> dict[str, Any] | None:
    """Block with counts, recurring latents and PW-MCC of the pair's crosscoders; None for one crosscoder."""
    if not known:
        return None
    rows = []
    for one in crosscoders:
        of_one = [value for (name, _), value in known.items() if name == one.name]
        rows.append(
            (one.name, len(one.exclusive("tuned")), len(of_one), sum(concept["recurs"] for concept in of_one))
        )
    n_concepts = sum(concept["lead"] for concept in known.values())
    name = "recurring concept" if n_concepts == 1 else "recurring concepts"
    sentence = (
        f"{n_concepts:,} {name}: groups of exclusive latents that are each other's nearest in another "
        f"crosscoder (cosine {MIN_COSINE:g} or more), with a latent that has such a twin in at least half of "
        "the others. The list of latents shows each once, by its best example. "
    )
    return {
        "title": "Crosscoders of this pair",
        "text": sentence + _mcc(crosscoders),
        "table": tables.plain(
            ["Crosscoder", "Tuned-exclusive", "Listed exclusive", "Recurring"], rows, numeric=[1, 2, 3]
        ),
    }


def _mcc(crosscoders: Sequence[PairSource]) -> str:
    """PW-MCC of the exclusive latents and, where they are few, of the shared ones."""
    readable = [one for one in crosscoders if weights_of(one) is not None]
    exclusive = [one.exclusive("tuned")["latent"].tolist() for one in readable]
    shared = [where(one.latents, kind="shared")["latent"].tolist() for one in readable]
    of_shared = (
        "" if max(map(len, shared)) > MAX_SHARED else f", of the shared ones {told(_mean(readable, shared))}"
    )
    of_exclusive = told(_mean(readable, exclusive))
    return (
        f"PW-MCC of the tuned-exclusive latents: {of_exclusive}{of_shared} (mean |cosine| of two "
        "seeds' directions under the best one-to-one matching, over all pairs of crosscoders)."
    )


def _mean(crosscoders: Sequence[PairSource], latents: Sequence[list[int]]) -> float:
    return mean_mcc(
        [
            directions(one, [int(n) for n in numbers], model=TUNED)
            for one, numbers in zip(crosscoders, latents, strict=True)
            if numbers
        ]
    )
