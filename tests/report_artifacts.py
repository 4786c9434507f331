"""A store of artifacts with the contract's schemas and invented content, for the report's tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from crossdiff.io.artifacts import write_manifest
from crossdiff.io.tables import write_json, write_table

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


@dataclass(frozen=True)
class Size:
    """How much to invent per pair."""

    n_latents: int = 600
    n_exclusive: int = 12
    n_examples: int = 4
    n_tokens: int = 24


def latent_table(size: Size, rng: np.random.Generator) -> pd.DataFrame:
    n = size.n_latents
    tuned, base = 1 + 0.1 * rng.standard_normal(n), 1 + 0.1 * rng.standard_normal(n)
    base[: size.n_exclusive] = 0.04
    tuned[size.n_exclusive : size.n_exclusive + 3] = 0.03
    dead = np.zeros(n, bool)
    dead[-n // 20 :] = True
    delta = (1 + (tuned - base) / np.maximum(tuned, base)) / 2
    kind = np.select(
        [dead, delta < 0.1, delta > 0.9, (delta >= 0.4) & (delta <= 0.6)],
        ["dead", "base_only", "tuned_only", "shared"], "other",
    )  # fmt: skip
    density = np.where(dead, 0.0, 10 ** rng.uniform(-5, -1.5, n))
    columns = {
        "latent": np.arange(n),
        "n_active": (density * 1e6).astype(int),
        "n_documents": (density * 1e4).astype(int) + 1,
    }
    columns |= {
        "density": density,
        "norm_base": base,
        "norm_tuned": tuned,
        "delta_norm": np.where(dead, np.nan, delta),
    }
    columns["decoder_cosine"] = np.where(dead, np.nan, np.clip(0.9 + 0.1 * rng.standard_normal(n), -1, 1))
    for probe in ("", "_baseprobe"):
        for target in ("activation", "reconstruction", "error"):
            for model in ("base", "tuned"):
                columns[f"beta_{target}_{model}{probe}"] = rng.uniform(0.5, 1, n)
            columns[f"nu_{target}{probe}"] = np.where(dead, np.nan, rng.normal(0.9, 0.15, n))
    table = pd.DataFrame(columns)
    table.loc[: size.n_exclusive - 1, ["nu_error", "nu_reconstruction"]] = rng.uniform(
        0, 0.15, (size.n_exclusive, 2)
    )
    for name in ("error", "reconstruction"):
        table[f"nu_{name}_low"], table[f"nu_{name}_high"] = (
            table[f"nu_{name}"] - 0.05,
            table[f"nu_{name}"] + 0.05,
        )
    table["kind"], table["call"], table["exclusive_to"] = kind, "not_exclusive", None
    table.loc[dead, "call"] = "undecided"
    table.loc[: size.n_exclusive - 1, ["call", "exclusive_to"]] = ["exclusive", "tuned"]
    if size.n_exclusive:
        table.loc[size.n_exclusive : size.n_exclusive + 2, ["call", "exclusive_to"]] = ["exclusive", "base"]
    return table


def examples(latents: list[int], size: Size, rng: np.random.Generator, *, hostile: bool) -> pd.DataFrame:
    rows, words = [], np.array([f" {word}" for word in WORDS], dtype=object)
    for latent in latents:
        for rank in range(size.n_examples):
            tokens = words[rng.integers(len(words), size=size.n_tokens)].tolist()
            if hostile:
                tokens[: len(HOSTILE)] = HOSTILE[: size.n_tokens]
            codes = np.where(rng.random(size.n_tokens) < 0.1, rng.uniform(0.2, 3, size.n_tokens), 0.0)
            peak = int(rng.integers(size.n_tokens))
            codes[peak] = 4.0 / (rank + 1)
            top = rank < size.n_examples // 2
            rows.append(
                {
                    "latent": latent, "subset": "explain" if rank % 2 else "score",
                    "source": "top" if top else "quantile",
                    "quantile": -1 if top else rank % 5, "rank": rank, "document_id": f"doc-{latent}-{rank}",
                    "document": rank, "start": 5 * rank, "peak": peak, "peak_code": codes[peak],
                    "tokens": tokens,
                    "codes": codes.astype("float32").tolist(), "kinds": [2] + [0] * (size.n_tokens - 1),
                }
            )  # fmt: skip
    names = "latent subset source quantile rank document_id document start peak peak_code tokens codes kinds"
    return pd.DataFrame(rows, columns=names.split())


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
    return row | words | rest | {"evidence": [0, 1], "scores": {"detection": 0.5 + (number % 5) / 10}}


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
        write_json({"version": 1, "pair": name, "latents": listed, "rejected": {}}, folder / "selection.json")
        frame = examples([row["latent"] for row in listed], self.size, self.rng, hostile=hostile)
        write_table(frame, folder / "examples.parquet", version=1, kind="examples")
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
