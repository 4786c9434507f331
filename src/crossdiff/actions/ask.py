"""`action=ask`: which latents of a finished run's pairs fire on the user's texts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from crossdiff.command_settings import AskSettings
from crossdiff.config import Experiment
from crossdiff.pipeline.plan import plan

if TYPE_CHECKING:
    from crossdiff.notebook.encoded import Encoded
    from crossdiff.notebook.pair import OpenPair
    from crossdiff.notebook.texts import Text


def perform(experiments: Sequence[Experiment]) -> int:
    """Print the top latents of every text for every pair, or write them as JSON lines; returns 0."""
    asked = experiments[0].ask
    texts = list(texts_of(asked))
    lines: list[dict[str, Any]] = []
    for experiment in experiments:
        for name, pair in opened(experiment):
            for text in texts:
                lines.append(answer(name, pair, text, asked))
                if asked.out is None:
                    print(as_text(lines[-1]), flush=True)
    if asked.out is not None:
        from crossdiff.io.tables import write_jsonl

        asked.out.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(lines, asked.out, ascii_only=True)
        print(f"ask: {asked.out} ({len(lines)} lines: one per text and pair)", flush=True)
    return 0


def texts_of(asked: AskSettings) -> Iterator[Text]:
    """The text, or the documents of the file; ValueError where neither or both are given."""
    from crossdiff.data.corpus import FilesSource
    from crossdiff.data.records import records
    from crossdiff.data.row_content import BadRecord

    if (asked.text is None) == (asked.file is None):
        raise ValueError(
            "action=ask needs a text; give either 'ask.text=\"...\"' or ask.file=texts.jsonl (text or "
            "messages per line, or a .txt file with one text per line)"
        )
    if asked.text is not None:
        yield asked.text
        return
    n_texts = 0
    for record in records(FilesSource(name="ask", paths=(str(asked.file),), txt="line"), organism=None):
        if isinstance(record, BadRecord):
            raise record
        n_texts += 1
        yield record.content  # type: ignore[misc]  OpenPair.encode refuses token ids
    if not n_texts:
        raise ValueError(
            f"ask.file={asked.file} has no text; name a file with at least one, or give ask.text="
        )


def opened(experiment: Experiment) -> Iterator[tuple[str, OpenPair]]:
    """The experiment's pairs, or the one that `ask.pair` names; ValueError where unfinished."""
    from crossdiff.notebook.finished_steps import FinishedSteps
    from crossdiff.notebook.run import Run

    steps = plan(experiment)
    run = Run(FinishedSteps.of_plan(steps, experiment.store), experiment.results)
    wanted = [experiment.ask.pair] if experiment.ask.pair else [pair.name for pair in experiment.pairs]
    planned = [step.label for step in steps if step.stage == "scale"]
    for name in wanted:
        if name not in planned:
            raise ValueError(f"ask.pair={name} is no pair of this command; it has {', '.join(planned)}")
        for step in steps:
            if step.label == name and step.stage in ("train", "scale"):
                step.finished_folder(experiment.store)
        yield name, run.open_pair(name, device=experiment.device)


def answer(name: str, pair: OpenPair, text: Text, asked: AskSettings) -> dict[str, Any]:
    """A JSON-able record: both models' figures and the top latents; a missing figure is None."""
    from crossdiff.report.formatting import finite

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        encoded: Encoded = pair.encode(text)
    for warning in caught:
        print(f"warning: {name}: {warning.message}", file=sys.stderr)
    top = encoded.top(asked.n, exclusive_to=asked.exclusive_to).drop(columns="text")
    rows = top.astype(object).where(top.notna(), None).to_dict("records")
    return finite(
        {
            "pair": name,
            "text": "".join(encoded.tokens["token"]),
            "n_tokens": encoded.fit.n_tokens,
            "fve": encoded.fve,
            "l0": encoded.l0,
            "latents": rows,
        }
    )


def as_text(line: dict[str, Any]) -> str:
    """An `answer` for people: one line of figures, then two per latent."""
    from crossdiff.report.formatting import told as number
    from crossdiff.report.formatting import visible

    fve = ", ".join(f"{name} {number(value)}" for name, value in line["fve"].items())
    lines = [
        f"{line['pair']}: {line['n_tokens']} tokens, FVE {fve}, {number(line['l0'], '.1f')} latents per token"
    ]
    for row in line["latents"]:
        models = [name.removeprefix("adds_") for name in row if name.startswith("adds_")]
        adds = ", ".join(f"{number(row[f'adds_{model}'])} to {model}" for model in models)
        whose = f"exclusive to {row['exclusive_to']}" if row.get("exclusive_to") else "exclusive to neither"
        label = row.get("category") or "no label"
        lines += [
            f"  latent {row['latent']}: code {number(row['code'])} at {row['token']!r}, adds {adds}; "
            f"{whose}, {label}",
            f"    {visible(row['marked'])}",
        ]
    return "\n".join([*lines, ""] if line["latents"] else [*lines, "  no latent fires on these tokens", ""])
