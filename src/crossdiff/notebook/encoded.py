"""Codes of a crosscoder on texts: active latents per token, with the shares of both models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.codes import SparseCode, check_latent
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.explained_variance import FitSums
from crossdiff.notebook.marked import Examples
from crossdiff.notebook.texts import TokenisedTexts

if TYPE_CHECKING:
    import pandas as pd

MODELS = ("base", "tuned")
JOINED = ("category", "call", "exclusive_to", "delta_norm")
"""Columns of a run's latent table that are joined to a latent."""


@dataclass(frozen=True)
class Encoded:
    """The codes of a crosscoder on texts; masked tokens (BOS) have none.

    x     [token, model, d_model] raw activations of all tokens
    fve   fraction of variance explained on these tokens, per model (or of the difference: diff_sae)
    l0    active latents per token
    """

    texts: TokenisedTexts
    crosscoder: Crosscoder
    x: Float[Tensor, "token model d_model"]
    code: SparseCode
    """Of the kept tokens."""
    fit: FitSums
    labels: pd.DataFrame | None = None

    @classmethod
    def of(
        cls,
        texts: TokenisedTexts,
        crosscoder: Crosscoder,
        x: Float[Tensor, "token model d_model"],
        *,
        threshold: float | None,
        labels: pd.DataFrame | None,
    ) -> Encoded:
        """Encode and reconstruct; ValueError where an activation is not finite or no threshold is set."""
        with torch.no_grad():
            rows = x[texts.kept].to(crosscoder.encoder.device)
            xn = crosscoder.normaliser.normalise(crosscoder.inputs(rows))
            code = crosscoder.encode_sparse(rows, threshold=threshold)
            fit = FitSums.zeros(xn)
            fit.add(xn, crosscoder.decode_normalised(code), n_active=len(code))
        fit.check_finite()
        return cls(texts, crosscoder, x, code, fit, labels)

    @property
    def fve(self) -> dict[str, float]:
        """FVE per model; NaN where the tokens do not vary."""
        return dict(zip(self.names, self.fit.explained(), strict=True))

    @property
    def l0(self) -> float:
        """Active latents per token."""
        return self.fit.l0()

    @property
    def names(self) -> tuple[str, ...]:
        """`base` and `tuned`; `difference` for a diff_sae."""
        return MODELS if self.crosscoder.n_models == len(MODELS) else ("difference",)

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """One row per token: text, position, token, kind, kept."""
        return self.texts.table()

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per latent and token on which it fires, by text, position and falling code.

        code       in the crosscoder's normalised space
        reads_<m>  model m's part of the pre-activation: code = reads of both + encoder bias
        adds_<m>   norm of the latent's output in model m, in normalised units: code * |d_m|
        """
        import pandas as pd

        code = self.code
        row = self.texts.kept.nonzero().flatten()[code.token.cpu()]
        reads, adds = self._shares()
        table = self.tokens.iloc[row.numpy()][["text", "position", "token", "kind"]].reset_index(drop=True)
        table["latent"], table["code"] = code.latent.cpu().numpy(), code.value.cpu().numpy()
        for number, name in enumerate(self.names):
            table[f"reads_{name}"] = reads[:, number].numpy()
            table[f"adds_{name}"] = adds[:, number].numpy()
        if self.labels is not None:
            columns = ["latent", *(name for name in JOINED if name in self.labels)]
            table = table.merge(self.labels[columns], on="latent", how="left", sort=False)
        order = ["text", "position", "code"]
        return pd.DataFrame(table.sort_values(order, ascending=[True, True, False], ignore_index=True))

    def _shares(self) -> tuple[Float[Tensor, "active model"], Float[Tensor, "active model"]]:
        """Per active entry and model: part of the pre-activation, and norm of the output."""
        crosscoder, code = self.crosscoder, self.code
        with torch.no_grad():
            rows = self.x[self.texts.kept].to(crosscoder.encoder.device)
            xn = crosscoder.normaliser.normalise(crosscoder.inputs(rows))
            reads = torch.empty(len(code), crosscoder.n_models)
            for part in torch.arange(len(code)).split(
                4096
            ):  # gathered directions would not fit for many texts
                directions = crosscoder.encoder[code.latent[part]]
                reads[part] = (directions * xn[code.token[part]]).sum(dim=2).cpu()
            norms = crosscoder.decoder.norm(dim=2)[code.latent]
            return reads, (code.value[:, None] * norms).cpu()

    def top(self, n: int = 10, *, exclusive_to: str | None = None) -> pd.DataFrame:
        """The `n` latents with the highest scaled code (code * code norm, as in training), one row each.

        Code, reads and adds are those at the latent's highest token; `n_tokens` counts its active tokens, and
        `marked` is the text with these between « and ». `exclusive_to` keeps the exclusive latents of one
        model.
        """
        table: Any = self.table
        if exclusive_to is not None:
            if "exclusive_to" not in table:
                raise ValueError(
                    "exclusive_to needs the latent table of a run; open the pair by run.open_pair"
                )
            if exclusive_to not in MODELS:
                raise ValueError(f"exclusive_to={exclusive_to!r} is no model; give base or tuned")
            table = table[table["exclusive_to"] == exclusive_to]
        norm = self.crosscoder.code_norm().detach().cpu().numpy()
        scaled = table["code"] * norm[table["latent"]]
        order = scaled.sort_values(ascending=False, kind="stable").index
        peaks = table.loc[order].drop_duplicates("latent").head(max(n, 0)).reset_index(drop=True)
        counts = table["latent"].value_counts()
        place = list(peaks.columns).index("latent")
        peaks = peaks[["latent", *peaks.columns[:place], *peaks.columns[place + 1 :]]]
        marked = [self.show(j).texts()[0] for j in peaks["latent"]]
        peaks["n_tokens"] = [int(counts[j]) for j in peaks["latent"]]
        peaks["marked"] = [str(text).partition("\n")[2] for text in marked]
        return peaks

    def show(self, latent: int) -> Examples:
        """Texts on which a latent fires, active tokens marked, by falling code."""
        import pandas as pd

        check_latent(latent, self.crosscoder.n_latents, "this crosscoder")
        everything: Any = self.table
        fires = everything[everything["latent"] == latent]
        rows: list[dict[str, Any]] = []
        for number, fired in fires.groupby("text"):
            tokens = self.tokens[self.tokens["text"] == number]
            codes = pd.Series(0.0, index=tokens["position"])
            codes[fired["position"]] = fired["code"].to_numpy(float)
            rows.append(
                {
                    "document_id": f"text {number}", "tokens": list(tokens["token"]),
                    "codes": codes.tolist(), "peak_code": float(fired["code"].max()),
                }
            )  # fmt: skip
        table = pd.DataFrame(rows, columns=["document_id", "tokens", "codes", "peak_code"])
        return Examples("your texts", int(latent), table, self._label(latent))

    def _label(self, latent: int) -> str:
        if self.labels is None or "category" not in self.labels:
            return ""
        labels = self.labels.loc[self.labels["latent"] == latent, "category"]
        return str(labels.iloc[0]) if len(labels) and isinstance(labels.iloc[0], str) else ""

    def __str__(self) -> str:
        fve = ", ".join(f"{name} {value:.3f}" for name, value in self.fve.items())
        return (
            f"{self.fit.n_tokens} tokens of {self.texts.tokens.n_documents} texts: FVE {fve}; "
            f"{self.l0:.1f} active latents per token"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shown = [self.show(j)._repr_html_() for j in self.top(8)["latent"]]
        return f"<p>{self}</p>{''.join(shown)}"
