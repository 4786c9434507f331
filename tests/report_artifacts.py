"""A store of artifacts with the contract's schemas and invented content, for the report's tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from crossdiff.io.artifacts import write_manifest
from crossdiff.io.tables import write_json, write_table
from experiments.bench.report_work import Size, examples, latent_table

CLASSES = {
    "safety_moderation": ["harmful_request_refusal", "content_moderation", "privacy_protection"],
    "technical": ["code_generation", "mathematics", "data_analysis"],
    "dialogue_management": ["query_classification", "error_handling", "self_reference"],
}
CATEGORIES = [(name, parent) for parent, names in CLASSES.items() for name in names]
WORDS = [
    "the",
    "model",
    "answer",
    "river",
    "stone",
    "please",
    "cannot",
    "help",
    "code",
    "sum",
    "table",
    "bright",
    "winter",
    "query",
    "error",
]
HOSTILE = [
    "</script>", "<img src=x onerror=\"document.title='owned'\">", "\u202eevil\u202c", "\u200b",
    "👩‍👩‍👧", "مرحبا بالعالم ",
    "深層学習の世界", "</style><script>document.title='owned'</script>", "{{ 7*7 }}", "x" * 100_000,
]  # fmt: skip


def with_hostile_tokens(frame: pd.DataFrame, size: Size) -> pd.DataFrame:
    """The same windows, each opening with what a hostile document would hold."""
    frame["tokens"] = [[*HOSTILE, *tokens[len(HOSTILE) :]][: size.n_tokens] for tokens in frame["tokens"]]
    return frame


def top_documents(examples: pd.DataFrame) -> pd.DataFrame:
    """The corpus' highest documents: for every latent one that no annotator has, then its examples."""
    first = examples[examples["rank"] == 0].copy()
    first["document_id"] = [f"{name}-higher" for name in first["document_id"]]
    first["tokens"] = [list(tokens)[::-1] for tokens in first["tokens"]]
    first["peak_code"] = first["peak_code"] * 2
    table = pd.concat([first, examples]).sort_values(["latent", "peak_code"], ascending=[True, False])
    return table.assign(source="top", quantile=-1, rank=table.groupby("latent").cumcount())


def annotation(pair: str, latent: int, role: str, *, state: str, number: int) -> dict:
    name, parent = CATEGORIES[number % len(CATEGORIES)]
    row = {"version": 1, "pair": pair, "latent": latent, "role": role, "state": state, "annotator": "lexical"}
    empty = {
        "label": None,
        "description": None,
        "category": None,
        "class": None,
        "votes": {},
        "confidence": None,
    }
    if state != "ok":
        return row | empty | {"keywords": [], "evidence": [], "scores": {}}
    words = {
        "label": f"{name.replace('_', ' ')} cue",
        "description": "Fires on polite refusals.",
        "category": name,
    }
    rest = {"class": parent, "votes": {name: 0.67, "other": 0.33}, "confidence": 4, "keywords": WORDS[:4]}
    scores = {"detection": 0.5 + (number % 5) / 10, "intruder": 1.0}
    return row | words | rest | {"evidence": [0, 1], "scores": scores}


def deltas(n_reference: int, n_treatment: int, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    names = [("class", name, None) for name in CLASSES] + [
        ("category", name, parent) for name, parent in CATEGORIES
    ]
    for level, name, parent in names:
        reference, treatment = (int(rng.integers(0, 6)) for _ in range(2))
        share_r, share_t = reference / max(n_reference, 1), treatment / max(n_treatment, 1)
        change = share_t / share_r - 1 if share_r else np.nan
        low, high = (
            (np.nan, np.nan) if np.isnan(change) else ((1 + change) * 0.5 - 1, (1 + change) * 1.9 - 0.9)
        )
        rows.append(
            [
                level,
                name,
                parent,
                reference,
                n_reference,
                treatment,
                n_treatment,
                share_r,
                share_t,
                change,
                low,
                high,
                0.2,
                0.4,
            ]
        )
    columns = "level name parent count_reference total_reference count_treatment total_treatment "
    columns += "share_reference share_treatment"
    return pd.DataFrame(
        rows, columns=[*columns.split(), "relative_change", "ci_low", "ci_high", "p_value", "q_value"]
    )


class Store:
    """Folders `<root>/<stage>/<key>` and the roles that point at them."""

    def __init__(
        self, root: Path, *, pairs: tuple[str, ...] = ("pt_it", "pt_simpo"), size: Size | None = None
    ) -> None:
        self.root, self.pairs, self.size = root, pairs, size or Size()
        self.parents: dict[str, Path] = {}
        self.rng = np.random.default_rng(0)

    def folder(self, role: str) -> Path:
        path = self.root / role.split("_", maxsplit=1)[0] / f"key-{role}"
        path.mkdir(parents=True, exist_ok=True)
        self.parents[role] = path
        return path

    def finish(self, role: str, *, parents: tuple[str, ...] = (), inputs: dict | None = None) -> None:
        content = {
            "stage": role.split("_", maxsplit=1)[0],
            "label": role.partition("_")[2],
            "key": f"key-{role}",
            "inputs": inputs or {},
        }
        write_manifest(
            self.parents[role],
            {
                **content,
                "parents": {each: f"key-{each}" for each in parents},
                "counts": {"n_rows": 3, "share": 0.5},
                "seconds": 61.0,
            },
        )

    def pair(self, name: str, *, hostile: bool = False) -> None:
        tokens = self.folder("tokens")
        (tokens / "x.txt").write_text("x")
        self.finish("tokens")
        train = self.folder(f"train_{name}")
        training = {
            "fve_base": 0.93,
            "fve_tuned": 0.92,
            "l0": 31.0,
            "k": 32,
            "dead_share": 0.05,
            "n_latents": self.size.n_latents,
        }
        write_json(training | {"threshold": 0.4, "n_steps": 100}, train / "training.json")
        steps = np.arange(0, 100, 5)
        metrics = {"step": steps, "train/loss": np.exp(-steps / 40), "train/l0": 32 + steps * 0.0}
        pd.DataFrame(
            metrics | {"validation/fve_base": steps / 107, "validation/fve_tuned": steps / 108}
        ).to_csv(train / "metrics.csv", index=False)
        self.finish(f"train_{name}", parents=("tokens",), inputs={"seed": 0})
        scale = self.folder(f"scale_{name}")
        table = latent_table(self.size, self.rng)
        write_table(table, scale / "latents.parquet", version=1, kind="latents")
        write_json(
            {"version": 1, "rejected": {"tuned": {"nu_error": 7, "min_tokens": 3, "exclusive": 12}}},
            scale / "diagnostics.json",
        )
        selection = {"selection": {"nu_error": 0.2, "nu_reconstruction": 0.5}}
        self.finish(f"scale_{name}", parents=(f"train_{name}",), inputs=selection)
        self.documents(name, table, hostile=hostile)

    def documents(self, name: str, table: pd.DataFrame, *, hostile: bool) -> None:
        folder = self.folder(f"documents_{name}")
        chosen = table[table["call"] == "exclusive"]
        listed = [
            {"latent": int(row.latent), "role": f"exclusive_{row.exclusive_to}"}
            for row in chosen.itertuples()
        ]
        if listed:
            listed.append({"latent": self.size.n_exclusive + 10, "role": "control_shared"})
        ends = [[token, 0.5] for token in (HOSTILE if hostile else ("the", " river"))]
        for row in listed:
            row["histogram"] = {"edges": [0.5, 1.0, 2.0, 4.0], "counts": [900, 0, 3]}
            row["logits"] = {model: {"top": ends, "bottom": ends} for model in ("base", "tuned")}
        write_json({"version": 1, "pair": name, "latents": listed, "rejected": {}}, folder / "selection.json")
        frame = examples([row["latent"] for row in listed], self.size, self.rng)
        if hostile:
            frame = with_hostile_tokens(frame, self.size)
        write_table(frame, folder / "examples.parquet", version=1, kind="examples")
        write_table(top_documents(frame), folder / "top_documents.parquet", version=1, kind="top_documents")
        self.finish(f"documents_{name}")

    def annotate(self, *, state: str | None = None) -> None:
        folder, lines = self.folder("annotate"), []
        for name in self.pairs:
            listed = json.loads((self.parents[f"documents_{name}"] / "selection.json").read_text())["latents"]
            for number, entry in enumerate(listed):
                own = state or ("refused" if number == 3 else "ok")
                lines.append(annotation(name, entry["latent"], entry["role"], state=own, number=number))
        (folder / "annotations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "taxonomy.yaml").write_text("version: 1\nname: paper\n")
        write_json({"version": 1, "annotator": "lexical"}, folder / "annotate.json")
        self.finish("annotate")

    def compare(self) -> None:
        folder = self.folder("compare")
        reference, treatment = self.pairs
        n = self.size.n_exclusive
        deltas(n, n, self.rng).to_csv(folder / "deltas.csv", index=False)
        planted = [{"name": name, "group": "gain", "change": 0.5} for name, _ in CATEGORIES[:4]]
        facts = {
            "version": 1, "reference": reference, "treatment": treatment,
            "n_exclusive": {reference: n, treatment: n},
            "n_labelled": {reference: n - 1, treatment: n - 1},
            "unanswered": {reference: {"refused": 1}, treatment: {"refused": 1}},
            "power": {"sentence": "with 12 against 12 latents only x5.6 is visible for a 20 % share"},
            "verdict": "Nothing is certain.", "recovered": planted, "planted": planted,
            "spearman": {"rho": 0.4, "ci_low": -0.1, "ci_high": 0.7}, "notes": ["A note."],
        }  # fmt: skip
        write_json(facts, folder / "comparison.json")
        self.finish("compare")


def build(
    root: Path,
    *,
    pairs: tuple[str, ...] = ("pt_it", "pt_simpo"),
    size: Size | None = None,
    hostile: bool = False,
    state: str | None = None,
) -> Store:
    """A finished set of artifacts for one pair or for two with their comparison."""
    store = Store(root, pairs=pairs, size=size)
    for name in pairs:
        store.pair(name, hostile=hostile)
    store.annotate(state=state)
    if len(pairs) == 2:
        store.compare()
    return store
