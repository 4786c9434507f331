"""The page's sentences: verdict, power line, failure signatures, notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from crossdiff.report.caveats import different_bases, no_interval, trained_too_short, two_families
from crossdiff.report.formatting import number, share
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.statistics import verdict
from crossdiff.taxonomy.scheme import RESERVED

SINK_SHARE = 0.1
"""Largest loss of FVE without the first token of every document that causes no warning."""


def headline(sources: Sources) -> str:
    """The headline, one sentence."""
    if sources.comparison is not None:
        names = {"reference": sources.comparison.reference, "treatment": sources.comparison.treatment}
        return verdict.headline(sources.comparison.deltas, **names)
    parts = []
    for pair in sources.pairs.values():
        n_tuned, n_base = len(pair.exclusive("tuned")), len(pair.exclusive("base"))
        parts.append(
            f"{pair.name}: {count(n_tuned, 'latent')} of {len(pair.latents):,} "
            f"{'belongs' if n_tuned == 1 else 'belong'} to the tuned model only, "
            f"{n_base:,} to the base model only."
        )
    return " ".join(parts) or "This report has no pair."


def comparison_lines(comparison: ComparisonSource) -> list[str]:
    """Lines below the chart: power, intervals before correction, unanswered latents, notes."""
    lines = [_sentence(text) for text in texts(comparison.facts.get("power"))]
    known = [
        row
        for row in comparison.rows()
        if not (row.is_class or row.name in RESERVED) and row.interval[0] == row.interval[0]
    ]
    clear = sum(not row.holds_zero for row in known)
    if known:
        lines.append(
            f"{count(clear, 'category interval is', 'category intervals are')} clear of 0; by chance alone "
            f"about {verdict.LEVEL * len(known):.2g} of {len(known)} would be, hence the corrected q-values."
        )
    for pair, states in (comparison.facts.get("unanswered") or {}).items():
        if unanswered := unanswered_text(states):
            lines.append(f"Outside the totals, {pair}: {unanswered} without an answer.")
    return [*lines, *(_sentence(text) for text in texts(comparison.facts.get("notes")))]


def unanswered_text(states: Any) -> str:
    """`3 refused, 1 invalid`, from counts per state; `3 latents` from a count."""
    if isinstance(states, dict):
        return ", ".join(f"{number(amount)} {state}" for state, amount in sorted(states.items()) if amount)
    return count(int(states), "latent") if states else ""


def undone_by(sources: Sources) -> list[str]:
    """Lines right below the headline, on what invalidates the rest of the page."""
    return [*trained_too_short(sources), *two_families(sources), *different_bases(sources)]


def leads(sources: Sources) -> list[str]:
    """Lines below the themes: the verdict, what is missing, how labels were made."""
    lines: list[str] = []
    if sources.comparison is not None:
        lines += [_sentence(text) for text in texts(sources.comparison.facts.get("verdict"))]
    if sources.pending is not None:
        reference, treatment = sources.pending
        lines.append(
            f"The comparison of {treatment} with {reference} is not finished yet; "
            "the page shows the finished parts."
        )
    for pair in sources.pairs.values():
        if pair.exclusive("tuned").empty:
            lines.append(
                f"{pair.name}: no latent passed {pair.passed} for the tuned model, "
                "so there is nothing to label."
            )
        elif not pair.annotated:
            lines.append(f"{pair.name}: its exclusive latents have no annotations yet.")
        elif not pair.n_labelled():
            told = unanswered_text(pair.states()) or "only controls were asked"
            lines.append(f"{pair.name}: no exclusive latent was labelled ({told}).")
    annotators = {row.get("annotator") for pair in sources.pairs.values() for row in pair.annotations}
    if any("lexical" in str(name) for name in annotators):
        lines.append(
            "Labels were made without a language model, from activation-weighted words: "
            "they are keywords, not meanings."
        )
    return [*lines, *(_sentence(text) for text in texts(sources.annotate.get("warnings")))]


def _unexplained(pair: PairSource, model: str) -> list[str]:
    fve = pair.training.get(f"fve_{model}")
    if fve is None or fve >= 0.8:
        return []
    return [
        f"The crosscoder explains only {share(fve)} of the {model} model's variance: "
        "what it misses is in no latent. Train longer (training.n_steps), or with more latents "
        "(dictionary.n_latents) or a larger sparsity.k."
    ]


def _sinks(pair: PairSource, model: str) -> list[str]:
    """A warning where the FVE depends on the first token of each document; else empty.

    Older crosscoders have the figure in their diagnostics, over all tokens.
    """
    fve, rest = (pair.training.get(f"{name}_{model}") for name in ("fve", "fve_without_first"))
    if rest is None:
        fve, rest = ((pair.diagnostics.get(name) or {}).get(model) for name in ("fve", "fve_without_first"))
    if fve is None or rest is None or fve - rest <= SINK_SHARE:
        return []
    return [
        f"The first token of each document carries the {model} model's FVE: {fve:.3f} with it, {rest:.3f} "
        "without. Such attention sinks have a very large norm and say nothing about the text: drop them with "
        "mask.skip_first=2 (or mask.outlier_norm=10, which source=live does not have) and train again."
    ]


def _of_training(pair: PairSource) -> list[str]:
    warnings = []
    k, l0 = pair.training.get("k"), pair.training.get("l0")
    if k and l0 is not None and abs(l0 / k - 1) > 0.2:
        warnings.append(
            f"At inference {l0:.1f} latents are active per token, trained for {k}: the threshold is off. "
            "Train longer (training.n_steps), so that it settles."
        )
    dead = pair.training.get("dead_share")
    if dead is not None and dead > 0.2:
        warnings.append(
            f"{share(dead)} of the latents are dead. Train longer (training.n_steps) or with fewer latents "
            "(dictionary.n_latents)."
        )
    return warnings


TWO_FAMILIES = (
    "The models are of two families, whose directions cannot be compared. Exclusive means by decoder norms "
    "alone: latent scaling, drift and cosines between the models are unknown, and a latent whose content the "
    "other model holds in other latents is called exclusive too. Read the counts as an upper bound. Tokens "
    "are those of the tokenizer that the pair shows (step tokens). Only aligned ones were read: in the "
    "documents all others look like tokens on which the latent is silent."
)


def unknown_charts(pair: PairSource) -> tuple[str, ...]:
    """Names of the pair's charts that would compare directions of two families."""
    return ("nu", "cosines") if pair.diagnostics.get("two_families") else ()


def failure_signatures(pair: PairSource) -> list[dict[str, str]]:
    """Warnings on this pair, or one line of assurance: `{"level": ok|warn, "text"}`."""
    diagnostics = pair.diagnostics
    warnings = [TWO_FAMILIES] if diagnostics.get("two_families") else []
    warnings += [*texts(diagnostics.get("signature")), *no_interval(pair)]
    for model in ("base", "tuned"):
        warnings += [*_unexplained(pair, model), *_sinks(pair, model)]
    warnings += _of_training(pair)
    template = (diagnostics.get("template") or {}).get("tuned") or {}
    if template.get("mainly_template"):
        told = count(
            template["mainly_template"], "tuned-exclusive latent fires", "tuned-exclusive latents fire"
        )
        warnings.append(
            f"{told} mainly on chat template tokens. "
            "They tell of the format: leave these tokens out (mask.mask=no_template) to see the text alone."
        )
    n_twins = (diagnostics.get("twins") or {}).get("n", 0)
    if n_twins:
        warnings.append(
            f"{count(n_twins, 'twin')}: a base-only and a tuned-only latent with the same direction "
            "(cosine above 0.9), one concept counted twice by norms. "
            "Read the two together (table Twins below) before calling either a change."
        )
    if warnings:
        return [{"level": "warn", "text": text} for text in warnings]
    return [
        {
            "level": "ok",
            "text": "No failure signature: the pair is neither too similar nor too distant, the "
            "reconstruction is good and the threshold holds.",
        }
    ]


def explorer_note(sources: Sources) -> str:
    """The content of the list of latents, or why it is empty."""
    n_listed = sum(len(pair.selected()) for pair in sources.pairs.values())
    if n_listed == 0:
        return "There is no exclusive latent to list."
    if all(pair.examples is None for pair in sources.pairs.values()):
        return f"{count(n_listed, 'latent')}; their documents were not collected."
    notices = [
        _sentence(text) for pair in sources.pairs.values() for text in texts(pair.selection.get("notices"))
    ]
    return " ".join(
        [f"{count(n_listed, 'latent')} with the documents that fire them most.", *dict.fromkeys(notices)]
    )


def texts(value: Any) -> list[str]:
    """The sentences in a string, a list or a `{"sentence": ...}`; empty for None."""
    match value:
        case str():
            return [value] if value else []
        case list() | tuple():
            return [text for item in value for text in texts(item)]
        case dict():
            return texts(value.get("sentence"))
    return []


def count(amount: int, one: str, many: str | None = None) -> str:
    """`1 latent`, `3 latents`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def joined(parts: Iterable[str]) -> str:
    """Parts as a list in a sentence."""
    return ", ".join(part for part in parts if part)


def _sentence(text: str) -> str:
    text = re.sub(r"`([^`]*)`", "“\\1”", text.strip()).replace("p = ", "p\u00a0=\u00a0")
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
