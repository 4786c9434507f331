"""The contenders' one table, and its sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crossdiff.report import tables
from crossdiff.report.formatting import told
from crossdiff.report.study_page import Chart
from crossdiff.statistics.isolation import ceiling

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
    "l1": "L1",
    "topk": "TopK",
    "batch_topk": "BatchTopK",
    "jumprelu": "JumpReLU",
    "designated_shared": "designated shared",
    "dedicated_feature": "dedicated feature (true form)",
    "dedicated": "dedicated (tied form)",
    "mixed_loss": "BatchTopK with mixed loss",
    "diff_sae": "diff-SAE",
}
"""What the page calls a kind."""
NOT_MEASURED, NO_CALL = "not measured", "no call"
WITHOUT_CALL = ("diff_sae",)
NO_CROSSCODER = "no crosscoder"
TOY_TITLES = (
    "Planted changes, right / wrong side", "Kept categories called", "Spearman", "Calibration: truth held",
    "Seed null: intervals that exclude no change", "Triggered: best latent", "Triggered: best called latent",
)  # fmt: skip
NULL_WORLDS = {
    "same": "Where the models are the same",
    "moved": "Where shared latents are merely rotated or weaker",
}


def answer(numbers: Mapping[str, Mapping[str, Any]]) -> str:
    """The highest and the lowest F1, the most and no false calls, and what is found on the toy."""
    said = [sentence for band in BANDS if (sentence := _ranked(numbers, band))]
    said += [_falsely_called(numbers, null) for null in NULL_WORLDS]
    for kind in WITHOUT_CALL:
        row = numbers.get(kind, {})
        if (share := row.get(HELD[0])) is not None and share == share:
            right = told(row.get("sign_right"), ".0%")
            signs = f", and the sign of {right} of what it holds of one model alone is right"
            said.append(
                f"{titled(kind)} makes no call: it holds {told(share, '.0%')} of the tuned-only directions "
                f"of {BANDS['frequent']}{'' if right == 'unknown' else signs}."
            )
    said.append(toy_sentence({titled(kind): row.get("toy") for kind, row in numbers.items()}))
    return " ".join(filter(None, said))


def _ranked(numbers: Mapping[str, Mapping[str, Any]], band: str) -> str:
    known = {kind: row[f"scaling_f1_{band}"] for kind, row in numbers.items()}
    known = {titled(kind): round(f1, 3) for kind, f1 in known.items() if f1 == f1}
    if not known:
        return ""
    best, least = max(known.values()), min(known.values())
    if best == 0:
        return f"Latents of {BANDS[band]}: no kind calls any of them (F1 0 for all)."
    lead = f"Latents of {BANDS[band]}: highest F1 {told(best, '.3f')} ({at(known, best)})"
    return f"{lead}." if least == best else f"{lead}, lowest {told(least, '.3f')} ({at(known, least)})."


def _falsely_called(numbers: Mapping[str, Mapping[str, Any]], null: str) -> str:
    """The kind with the most false calls per 1,000 in a world without any exclusive latent, and those with
    none."""
    calls = {titled(kind): row[null]["value"] for kind, row in numbers.items() if row[null]}
    if not calls:
        return ""
    most, least = max(calls.values()), min(calls.values())
    if most == 0:
        return f"{NULL_WORLDS[null]}, no kind calls a latent exclusive."
    fewer = f"; none by {at(calls, 0)}" if least == 0 else "; the others make fewer"
    others = fewer if least < most else ""
    amount = told(most, ".0f" if most >= 10 else ".2g")
    makes = _with(calls, most, "makes", "make")
    return f"{NULL_WORLDS[null]}, {makes} most false calls ({amount} per 1,000){others}."


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


def false_calls_chart(numbers: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Exclusive calls per 1,000 latents in the worlds that have no exclusive latent."""
    from crossdiff.report.figures.curves import Point, rows

    calls = {
        words: [
            Point(titled(kind), row[null]["value"], row[null]["low"], row[null]["high"])
            for kind, row in numbers.items()
            if row[null]
        ]
        for null, words in NULL_WORLDS.items()
    }
    return Chart(
        "false_calls",
        "False calls where no latent belongs to one model",
        "Exclusive calls per 1,000 alive latents, all seeds together, with Wilson's 95 % interval.",
        rows(calls, x_title="False calls per 1,000 latents"),
    )


def _known(value: float) -> float | str:
    return value if value == value else NOT_MEASURED


def _per_1000(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOT_MEASURED
    return f"{found['value']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def is_found(triggered: Mapping[str, Any]) -> bool:
    """Whether the best latent that the method calls new beats the null on the held-out half; of a method
    without a call the best latent."""
    best = _best(triggered)
    return best is not None and best["held_out"] > best["null_95"]


def toy_cells(found: Mapping[str, Any] | None, *, otherwise: str) -> list[str | float]:
    """A row's cells under `TOY_TITLES`."""
    if found is None:
        return [otherwise] * len(TOY_TITLES)
    null, triggered = found["null"], found["triggered"]
    share = otherwise
    if null is not None:
        interval = f"{told(null['low'], '.0%')} to {told(null['high'], '.0%')}"
        share = f"{null['n_clear']} of {null['n_intervals']} ({interval})"
    rho = found["spearman"]
    return [
        f"{found['n_right']} / {found['n_wrong']} of {found['n_changed']}",
        f"{found['n_false']} of {found['n_kept']}",
        otherwise if rho is None else rho,
        f"{found['n_held']} of {found['n_with_interval']}",
        share,
        *([otherwise] * 2 if triggered is None else _scores(triggered)),
    ]


def _scores(triggered: Mapping[str, Any]) -> list[str]:
    return [score(triggered["any"]), score(triggered["called"]) if triggered["calls"] else NO_CALL]


def topic_cells(topics: Mapping[str, Any]) -> list[str | float]:
    """The same of topics, which have no intervals and no latents: signs stand for intervals."""
    right, rho = topics["right_signs"]["topics"], topics["spearman"]["topics_planted"]
    signs = "unknown" if right is None else f"{right[0]} signs right of {right[1]}"
    none, chats = "no interval", "no score"
    return [signs, none, "unknown" if rho is None else rho, none, none, chats, chats]


def score(best: Mapping[str, Any] | None) -> str:
    """A held-out isolation score beside its null."""
    if best is None:
        return "none called"
    return f"{told(best['held_out'])} (null {told(best['null_95'])})"


def at(figures: Mapping[str, float], value: float) -> str:
    """The kinds that have this figure."""
    return ", ".join(kind for kind, figure in figures.items() if figure == value)


def toy_sentence(rows: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Which kinds find most and fewest of the planted changes, and which the triggered behaviour; nothing
    without a run on the toy."""
    known = {kind: row for kind, row in rows.items() if row is not None}
    if not known:
        return ""
    right, wrong = ({kind: row[name] for kind, row in known.items()} for name in ("n_right", "n_wrong"))
    most, least, worst = max(right.values()), min(right.values()), max(wrong.values())
    n_changed = next(iter(known.values()))["n_changed"]
    text = f"Of {n_changed} planted changes on the toy, {_with(right, most)} {most} intervals on their side"
    if least < most:
        text += f", {at(right, least)} {least}"
    text += f"; on the wrong side {_with(wrong, worst)} {worst}." if worst else "; none is on the wrong side."
    triggered = {kind: row["triggered"] for kind, row in known.items() if row["triggered"] is not None}
    if not triggered:
        return text
    found = [kind for kind, record in triggered.items() if is_found(record)]
    missed = [kind for kind in triggered if kind not in found]
    if not found or not missed:
        return f"{text} {'No' if missed else 'Every'} kind on the toy finds the triggered behaviour."
    return f"{text} The triggered behaviour is found by {', '.join(found)}, not by {', '.join(missed)}."


def _with(figures: Mapping[str, float], value: float, one: str = "has", many: str = "have") -> str:
    """The kinds that have this figure, and the verb for one kind or many."""
    return f"{at(figures, value)} {one if list(figures.values()).count(value) == 1 else many}"


def ceiling_note(rows: Mapping[str, Mapping[str, Any] | None]) -> str:
    """The highest isolation score of a latent that fires in many chats; nothing without a trigger."""
    records = [row["triggered"] for row in rows.values() if row is not None and row["triggered"] is not None]
    if not records:
        return ""
    n_triggered, n_documents = (records[0][name] for name in ("n_triggered", "n_documents"))
    most = told(ceiling(n_triggered, n_documents))
    return (
        f" With {n_triggered} of {n_documents:,} chats triggered, a latent that fires in 5 % of the chats or "
        f"more has an isolation score of about {most} at most, however well it separates them."
    )


def _best(triggered: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return triggered["called" if triggered["calls"] else "any"]
