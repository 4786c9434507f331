"""The contenders' one table, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossdiff.report import tables
from crossdiff.report.formatting import told
from crossdiff.studies.contenders.on_toy import TOY_TITLES, topic_cells, toy_cells, toy_sentence

if TYPE_CHECKING:
    from crossdiff.report.tables import Table

FIGURES = (
    "scaling_f1_frequent",
    "scaling_f1_rare",
    "norm_f1_frequent",
    "norm_f1_rare",
    "scaling_precision_all",
)
HELD = ("held_tuned_frequent", "held_tuned_rare")
"""Share of the tuned-only latents whose direction some latent has, called or not."""
BANDS = {"frequent": "1 % of tokens and more", "rare": "0.3 to 1 %"}
TITLES = {
    "dedicated_feature": "dedicated feature (true form)",
    "dedicated": "dedicated, tied form",
    "mixed_loss": "BatchTopK, mixed loss",
}
"""What the table calls a kind whose name in the settings does not say enough."""
NOT_MEASURED, NO_CALL = "not measured", "no call"
WITHOUT_CALL = ("diff_sae",)
NO_CROSSCODER = "no crosscoder"
NULL_WORLDS = ("same", "moved")


def answer(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """Who leads in F1 and who is behind, by how much, and who makes false calls on a null."""
    said = [sentence for band in BANDS if (sentence := _ranked(numbers, band))]
    for null in NULL_WORLDS:
        known = {kind: row[null] for kind, row in numbers.items() if row[null]}
        worst_first = sorted(known.items(), key=lambda item: -item[1]["value"])
        called = [
            f"{titled(kind)} {told(row['value'], '.0f')}" for kind, row in worst_first if row["n_calls"]
        ]
        said.append(f"False calls per 1,000 where the models are {null}: {', '.join(called) or 'none'}.")
    for kind in WITHOUT_CALL:
        row = numbers.get(kind, {})
        if (share := row.get(HELD[0])) is not None and share == share:
            held, right = (told(row.get(name), ".0%") for name in (HELD[0], "sign_right"))
            said.append(
                f"{titled(kind)} makes no call: it holds {held} of the tuned-only directions of "
                f"{BANDS['frequent']}, and the sign of {right} of what it holds of one model alone is right."
            )
    said.append(toy_sentence({titled(kind): row.get("toy") for kind, row in numbers.items()}))
    return " ".join(filter(None, said))


def _ranked(numbers: Mapping[str, Mapping[str, Any]], band: str) -> str:
    known = {kind: row[f"scaling_f1_{band}"] for kind, row in numbers.items()}
    order = sorted(
        ((round(f1, 3), kind) for kind, f1 in known.items() if f1 == f1), key=lambda item: -item[0]
    )
    if not order:
        return ""
    best = order[0][0]
    if best == 0:
        return f"Latents of {BANDS[band]}: no kind calls any of them (F1 0 for all)."
    leaders = ", ".join(titled(kind) for f1, kind in order if f1 == best)
    behind = ", ".join(f"{titled(kind)} {told(f1, '.3f')}" for f1, kind in order if f1 < best)
    lead = f"Latents of {BANDS[band]}: highest F1 {told(best, '.3f')} ({leaders})"
    return f"{lead}; lower: {behind}." if behind else f"{lead}."


def titled(kind: str) -> str:
    """A kind's name as the page shows it."""
    return TITLES.get(kind, kind)


def contenders_table(numbers: Mapping[str, Mapping[str, Any]], topics: Mapping[str, Any] | None) -> Table:
    """One row per kind; `topics` are the figures of the baseline by the logits alone, its last row."""
    titles = ["Kind", "F1, 1 %", "F1, 0.3 to 1 %", "By norm, 1 %", "By norm, 0.3 to 1 %", "Precision"]
    titles += [f"False per 1,000, {null}" for null in NULL_WORLDS]
    titles += ["Held, 1 %", "Held, 0.3 to 1 %", "Training seconds", "Weights, MB", *TOY_TITLES]
    body = [
        [
            titled(kind),
            *(NO_CALL if kind in WITHOUT_CALL else _known(row[name]) for name in FIGURES),
            *(NO_CALL if kind in WITHOUT_CALL else _per_1000(row[null]) for null in NULL_WORLDS),
            *(_known(row[name]) for name in HELD),
            _known(row["train_seconds"]),
            _known(row["weights_mb"]),
            *toy_cells(row["toy"], otherwise=NOT_MEASURED),
        ]
        for kind, row in numbers.items()
    ]
    if topics is not None:
        rest = len(titles) - len(TOY_TITLES) - 1
        body.append(["topics of the logits", *[NO_CROSSCODER] * rest, *topic_cells(topics)])
    return tables.plain(titles, body, numeric=range(1, len(titles)))


def _known(value: float) -> float | str:
    return value if value == value else NOT_MEASURED


def _per_1000(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"
