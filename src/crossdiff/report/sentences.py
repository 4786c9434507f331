"""What the figures say, in sentences: the verdict, the power line, failure signatures, what was set aside."""

from __future__ import annotations

from typing import Any

from crossdiff.report.figures.changes import holds_zero
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.report.words import number, share

ALPHA = 0.05


def headline(sources: Sources) -> str:
    """The one sentence a reader takes away."""
    if sources.comparison is not None:
        return comparison_verdict(sources.comparison)
    parts = []
    for pair in sources.pairs.values():
        n_tuned, n_base = len(pair.exclusive("tuned")), len(pair.exclusive("base"))
        parts.append(
            f"{pair.name}: {_count(n_tuned, 'latent')} of {len(pair.latents):,} "
            f"{'belongs' if n_tuned == 1 else 'belong'} to the tuned model only, {n_base:,} to the base model only."
        )
    return " ".join(parts) or "This report holds no pair."


def comparison_verdict(comparison: ComparisonSource) -> str:
    """`12 of 30 categories changed beyond what 92 against 113 latents can show by chance.`"""
    rows = comparison.deltas[comparison.deltas["level"] == "category"]
    if rows.empty or not (rows["total_reference"].max() > 0 and rows["total_treatment"].max() > 0):
        return (
            "Nothing to compare: "
            f"{comparison.facts.get('n_labelled', {})} labelled exclusive latents leave no shares to set side by side."
            if comparison.facts.get("n_labelled")
            else "Nothing to compare: at least one pair has no labelled exclusive latent."
        )
    n_treatment, n_reference = int(rows["total_treatment"].max()), int(rows["total_reference"].max())
    n_found = int((rows["q_value"] <= ALPHA).sum())
    n_clear = sum(not holds_zero(row) for row in rows.itertuples(index=False))
    number_of = "None" if n_found == 0 else f"{n_found}"
    verb = "changed"
    return (
        f"{number_of} of {len(rows)} categories {verb} beyond what {n_treatment} against {n_reference} latents "
        f"can show by chance (false discovery rate {ALPHA:.0%}; {n_clear} with an interval clear of 0)."
    )


def failure_signatures(pair: PairSource) -> list[dict[str, str]]:
    """Warnings about a pair, `{"level": ok|warn, "text"}`, from diagnostics.json and the latent table."""
    found = [
        {"level": "warn", "text": text}
        for key in ("signatures", "sentences", "warnings")
        for text in _texts(pair.diagnostics.get(key))
    ]
    alive = pair.latents[pair.latents["kind"] != "dead"]
    delta = alive["delta_norm"].dropna()
    if not found and len(delta):
        if not ((delta < 0.1) | (delta > 0.9)).any() and ((delta >= 0.3) & (delta <= 0.6)).mean() >= 0.5:
            found.append(
                {
                    "level": "warn",
                    "text": "This pair is too similar: no alive latent lies below 0.1 or above 0.9 of delta_norm and at least half lie in 0.3 to 0.6, so exclusive latents cannot be told from shared ones.",
                }
            )
        elif ((delta >= 0.4) & (delta <= 0.6)).mean() < 0.1:
            found.append(
                {
                    "level": "warn",
                    "text": "This pair is too distant: fewer than 10 % of its alive latents are shared (delta_norm 0.4 to 0.6).",
                }
            )
    for model in ("base", "tuned"):
        fve = pair.training.get(f"fve_{model}")
        if fve is not None and fve < 0.8:
            found.append(
                {
                    "level": "warn",
                    "text": f"The crosscoder explains only {share(fve)} of the {model} model's variance: what it misses is in no latent.",
                }
            )
    if not found:
        found.append(
            {
                "level": "ok",
                "text": "No failure signature: the pair is neither too similar nor too distant, and the reconstruction is good.",
            }
        )
    return found


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in _texts(item)]
        case dict():
            return _texts(value.get("sentence") or value.get("text") or [])
    return []


def set_aside(pair: PairSource) -> list[tuple[str, str, str]]:
    """Every count that was left out on the way, as (step, what, count)."""
    latents = pair.latents
    rows = [
        ("train", "latents that never fire (dead)", number(int((latents["kind"] == "dead").sum()))),
        ("scale", "latents whose call is undecided", number(int((latents["call"] == "undecided").sum()))),
    ]
    for clause, count in (pair.diagnostics.get("rejected") or pair.selection.get("rejected") or {}).items():
        rows.append(("scale", f"rejected by: {clause}", number(count)))
    if pair.annotated:
        for state, count in sorted(pair.states().items()):
            if state != "ok":
                rows.append(("annotate", f"tuned-exclusive latents: {state}", number(count)))
    else:
        rows.append(("annotate", "no annotations yet", number(len(pair.exclusive("tuned")))))
    return rows


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def leads(sources: Sources) -> list[str]:
    """Lines below the headline: what is missing from this report, and what kind of labels it carries."""
    lines = []
    for pair in sources.pairs.values():
        if pair.exclusive("tuned").empty:
            lines.append(
                f"{pair.name}: no latent passed latent scaling for the tuned model, so there is nothing to label."
            )
        elif not pair.annotated:
            lines.append(f"{pair.name}: its exclusive latents have no annotations yet.")
        elif pair.annotations and not pair.states().get("ok"):
            told = ", ".join(f"{count} {state}" for state, count in sorted(pair.states().items()))
            lines.append(
                f"{pair.name}: no exclusive latent was labelled ({told or 'only controls were asked'})."
            )
    annotators = {row.get("annotator") for pair in sources.pairs.values() for row in pair.annotations}
    if any("lexical" in str(name) for name in annotators):
        lines.append(
            "Labels were made without a language model, from activation-weighted words: they are keywords, not meanings."
        )
    return lines


def comparison_lines(comparison: ComparisonSource) -> list[str]:
    """The power line and the notes of the comparison."""
    lines = _texts(comparison.facts.get("power"))
    return [*lines, *_texts(comparison.facts.get("notes"))]


def explorer_note(sources: Sources) -> str:
    """What the list of latents holds, or why it is empty."""
    n_listed = sum(len(pair.selected()) for pair in sources.pairs.values())
    if n_listed == 0:
        return "There is no exclusive latent to list."
    if all(pair.examples is None for pair in sources.pairs.values()):
        return f"{_count(n_listed, 'latent')}; their documents were not collected."
    return f"{_count(n_listed, 'latent')} with the documents that fire them most."
