"""The page of difference dictionaries (diff_sae): latents by sign of effect, labels, documents, deltas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.tables import alive, known, read_deltas, values, where
from crossdiff.report import style, tables
from crossdiff.report.delta_rows import DeltaRow, delta_rows, ordered
from crossdiff.report.documents import around
from crossdiff.report.formatting import between, number, readable, share, tile, told
from crossdiff.report.sources import PairSource, Sources
from crossdiff.report.study_page import Chart, Findings, render
from crossdiff.report.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

QUESTION = "Which directions does fine-tuning add, and which does it take away?"
SIGNS = {"up": "effect_up", "down": "effect_down"}
COLOURS = {"up": style.MORE, "down": style.LESS, "undecided": style.SAME}
NOTE = (
    "A latent is a direction of the difference between the models (diff_sae), so none is called one model's "
    "own. Up: where it fires the tuned model lies further along its direction than the base model; down: the "
    "base model lies further along the opposite one, which the tuned model lost."
)


def page(sources: Sources, down: Path | None, *, title: str, artifacts: Sequence[tuple[str, Path]]) -> str:
    """The page as HTML text; `down` is the delta table of the latents that go down, of two pairs."""
    from crossdiff.io.artifacts import MANIFEST

    finished = [(role, folder) for role, folder in artifacts if (folder / MANIFEST).is_file()]
    return render(findings(sources, down), title=title, question=QUESTION, artifacts=finished)


def findings(sources: Sources, down: Path | None) -> Findings:
    """Answer, tiles, and per pair a scatter, labels by sign and the latents with a document each."""
    charts: list[Chart] = [_crosscoders(sources)] if sources.members else []
    if sources.comparison is not None:
        compared = f"{sources.comparison.treatment} against {sources.comparison.reference}"
        up_rows = sources.comparison.rows()
        charts.append(_delta_chart("deltas", f"Latents that go up: {compared}", up_rows))
        if down is not None and down.is_file():
            rows = delta_rows(read_deltas(down))
            charts.append(_delta_chart("deltas_down", f"Latents that go down: {compared}", rows))
    for pair in sources.pairs.values():
        charts += [_shifts(pair), *_labels(pair), _latents(pair)]
    return Findings(
        " ".join(_sentence(pair) for pair in sources.pairs.values()),
        notes=(NOTE, *_compared(sources)),
        tiles=tuple(each for pair in sources.pairs.values() for each in _tiles(pair)),
        charts=tuple(charts),
    )


def _crosscoders(sources: Sources) -> Chart:
    """Latents by sign of every crosscoder, where a pair has several."""
    body = [
        [source.name, *_counts(source).values(), source.training.get("fve_difference")]
        for pair in sources.pairs
        for source in sources.crosscoders(pair)
    ]
    table = tables.plain(["Crosscoder", *COLOURS, "FVE"], body, numeric=[1, 2, 3, 4])
    caption = (
        "The crosscoders of a pair differ in their seed alone. Tables of changes count the latents of all; "
        f"figures, labels and latents further down are of {' and '.join(sources.pairs)}."
    )
    return Chart("crosscoders", "Latents by sign, per crosscoder", caption, table=table)


def _compared(sources: Sources) -> list[str]:
    """Per sign what changes between the two pairs and, of a toy, how it goes with what was planted."""
    facts = sources.comparison.facts if sources.comparison is not None else {}
    lines = [f"{note}." for note in facts.get("notes", ())]
    by_sign = facts.get("by_sign", {})
    for sign, found in by_sign.items():
        line = f"Latents that go {sign}: {found['verdict']}."
        rank = found.get("spearman") or {}
        if rank.get("rho") is not None:
            interval = between(rank.get("ci_low"), rank.get("ci_high"), "+.2f")
            line += f" Rank correlation with the planted changes: {told(rank['rho'], '+.2f')} ({interval})."
        lines.append(line)
    return lines


def _counts(pair: PairSource) -> dict[str, int]:
    return {sign: len(where(pair.latents, sign=sign)) for sign in COLOURS}


def _sentence(pair: PairSource) -> str:
    counts = _counts(pair)
    return (
        f"{pair.name}: of {len(alive(pair.latents)):,} latents of the difference that ever fire, "
        f"{counts['up']:,} go up, {counts['down']:,} go down and {counts['undecided']:,} are undecided."
    )


def _tiles(pair: PairSource) -> list[dict[str, str]]:
    counts, fit = _counts(pair), pair.training.get("fve_difference")
    note = "variance of the difference explained on held-out tokens, 1 is perfect"
    return [
        tile(f"{pair.name}: up", number(counts["up"]), "the tuned model goes further"),
        tile(f"{pair.name}: down", number(counts["down"]), "the base model does"),
        tile(f"{pair.name}: FVE", told(fit, ".3f"), note),
        tile(f"{pair.name}: L0", number(pair.training.get("l0")), "active latents per token"),
    ]


def _shifts(pair: PairSource) -> Chart:
    counts = _counts(pair)
    dead = len(where(pair.latents, kind="dead"))
    table = tables.plain(["Sign", "Latents"], [*counts.items(), ("dead", dead)], numeric=[1])
    caption = (
        "How much further each model lies along the direction where the latent fires than elsewhere, "
        "in activation units. Right and up: towards the latent; on the falling diagonal both move as far."
    )
    return Chart(f"shifts-{pair.name}", f"{pair.name}: what moves", caption, _scatter(pair), table)


def _scatter(pair: PairSource) -> go.Figure:
    import plotly.graph_objects as go

    figure = style.layout(go.Figure(), height=400)
    shown = known(alive(pair.latents), "shift_base", "shift_tuned")
    if shown.empty:
        return style.note(figure, "No latent of this pair has a shift.")
    for sign, colour in COLOURS.items():
        part = where(shown, sign=sign)
        figure.add_scatter(
            mode="markers",
            x=np.round(values(part, "shift_base"), 4).tolist(),
            y=np.round(values(part, "shift_tuned"), 4).tolist(),
            customdata=[int(latent) for latent in part["latent"]],
            name=f"{sign} ({len(part):,})",
            marker={"color": colour, "size": 6},
            hovertemplate="latent %{customdata}<br>base %{x:.3f}<br>tuned %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title={"text": "shift of the base model"})
    figure.update_yaxes(title={"text": "shift of the tuned model"})
    return figure


def _delta_chart(name: str, title: str, rows: list[DeltaRow]) -> Chart:
    caption = "Shares of labelled latents of this sign; change with 95 % interval over latents (and seeds)."
    return Chart(name, title, caption, table=tables.deltas(rows, planted=None))


def _labels(pair: PairSource) -> list[Chart]:
    """Labels of the latents that go up against those that go down; nothing before annotation."""
    from crossdiff.statistics.deltas import category_deltas

    up, down = (_answers(pair, role) for role in SIGNS.values())
    if not pair.annotated or not (up or down):
        return []
    rows = delta_rows(category_deltas(list(down.values()), list(up.values())))
    titles = [
        "Category",
        "Up",
        "Down",
        "Share up",
        "Share down",
        "Up against down",
        "95 % interval",
        "p",
        "q",
    ]
    body = [
        [
            readable(row.name),
            row.counts[1],
            row.counts[0],
            Cell(share(row.shares[1]), sort=_sortable(row.shares[1])),
            Cell(share(row.shares[0]), sort=_sortable(row.shares[0])),
            Cell(row.text, sort=_sortable(row.value)),
            row.interval_text(),
            row.p_value,
            row.q_value,
        ]
        for row in ordered(rows)
    ]
    caption = f"Labelled latents: {len(up):,} that go up, {len(down):,} that go down."
    title = f"{pair.name}: labels by sign"
    table = tables.plain(titles, body, numeric=[1, 2, 3, 4, 5, 7, 8])
    return [Chart(f"labels-{pair.name}", title, caption, table=table)]


def _answers(pair: PairSource, role: str) -> dict[int, str]:
    """Latent -> category of the answered latents of a role."""
    rows = (row for row in pair.annotations if row["role"] == role and row["state"] in ANSWERED)
    return {int(row["latent"]): row["category"] for row in rows}


def _latents(pair: PairSource) -> Chart:
    """Every latent with documents, by how much it moves over the corpus: density x |shift difference|."""
    chosen = {int(entry["latent"]) for entry in pair.selected()}
    labels = {latent: label for role in SIGNS.values() for latent, label in _answers(pair, role).items()}
    lines = _documents(pair.top if pair.top is not None else pair.examples)
    rows = [row for row in pair.latents.to_dict("records") if int(row["latent"]) in chosen]
    rows.sort(key=lambda row: -_moved(row))
    body = [
        [
            int(row["latent"]),
            row["sign"],
            *(float(row[name]) for name in ("effect", "shift_tuned", "shift_base", "density", "n_documents")),
            readable(labels[latent]) if (latent := int(row["latent"])) in labels else "not labelled",
            lines.get(latent),
        ]
        for row in rows
    ]
    titles = ["Latent", "Sign", "Effect", "Shift, tuned", "Shift, base", "Density", "Documents", "Label"]
    table: Table = tables.plain([*titles, "Where it fires most"], body, numeric=[0, 2, 3, 4, 5, 6])
    caption = (
        "Effect: (|shift, tuned| − |shift, base|) over the larger of the two; 1 the tuned model alone moves, "
        "−1 the base model alone. Active tokens stand between « and »."
    )
    return Chart(f"latents-{pair.name}", f"{pair.name}: latents with a sign", caption, table=table)


def _moved(row: dict[str, Any]) -> float:
    moved = float(row["density"]) * abs(float(row["shift_tuned"]) - float(row["shift_base"]))
    return moved if moved == moved else 0.0


def _documents(frame: pd.DataFrame | None) -> dict[int, str]:
    """Latent -> one line around the peak of its highest document."""
    if frame is None:
        return {}
    highest = frame.sort_values("peak_code", ascending=False, kind="stable").drop_duplicates("latent")
    return {int(row["latent"]): _line(row) for row in highest.to_dict("records")}


def _line(row: dict[str, Any]) -> str:
    tokens, codes = list(row["tokens"]), list(row["codes"])
    first, last = around(tokens, int(row["peak"]))
    text = "".join(
        f"«{token}»" if code > 0 else token
        for token, code in zip(tokens[first:last], codes[first:last], strict=True)
    )
    return " ".join(text.split())


def _sortable(value: float) -> float | None:
    return None if value != value else float(value)
