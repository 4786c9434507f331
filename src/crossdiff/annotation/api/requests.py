"""One request to a `/v1/messages` server, the ledger's key of its answer, and what requests cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any


def sha256(text: str) -> str:
    """Hex sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Request:
    """One request to one model; `purpose` is for people and does not enter the key."""

    purpose: str
    provider: str
    model: str
    system: str
    messages: tuple[tuple[str, str], ...]
    schema: dict[str, Any]
    effort: str | None
    max_tokens: int
    vote: int
    example_set: str
    structured: bool = True

    @cached_property
    def key(self) -> str:
        """sha256 over everything that can change the answer (docs/annotation.md, Money and the ledger)."""
        prompt = sha256(json.dumps([self.system, self.messages]))
        schema = sha256(json.dumps(self.schema, sort_keys=True))
        parts = [self.provider, self.model, prompt, schema, self.effort, self.max_tokens, self.vote]
        return sha256(json.dumps([*parts, self.example_set, self.structured]))

    def body(self) -> dict[str, Any]:
        """The parameters of `messages.create`."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "messages": [{"role": role, "content": content} for role, content in self.messages],
        }
        output: dict[str, Any] = {}
        if self.effort is not None:
            output["effort"] = self.effort
        if self.structured:
            output["format"] = {"type": "json_schema", "schema": self.schema}
        return body | ({"output_config": output} if output else {})

    @cached_property
    def n_bytes(self) -> int:
        """UTF-8 length of the prompt, which tracks tokens better than characters do in all scripts."""
        texts = (self.system, *(content for _, content in self.messages))
        return sum(len(text.encode("utf-8", "replace")) for text in texts)


SHIPPED = Path(__file__).with_name("prices.yaml")
BYTES_PER_TOKEN = 2.5
"""Low (English has about 4), so that the reserve is too large rather than too small."""
MAX_TOKENS = 1_000_000_000
"""Largest count of tokens that is believed."""
TYPICAL_OUTPUT = 250
"""Output tokens of a typical answer, for the estimate; the budget reserves `max_tokens`."""


@dataclass(frozen=True)
class Prices:
    """Model -> US dollars per million input and output tokens, and the factor for batches."""

    as_of: str
    models: Mapping[str, tuple[float, float]]
    batch_factor: float = 0.5

    @classmethod
    def load(cls, path: Path | None = None) -> Prices:
        """The shipped price file, or the user's."""
        import yaml

        source = path or SHIPPED
        if not source.is_file():
            raise ValueError(
                f"price file {source} does not exist; leave annotator.prices out for the shipped one"
            )
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
        try:
            models = {name: (float(p["input"]), float(p["output"])) for name, p in content["models"].items()}
            return cls(str(content["as_of"]), models, float(content.get("batch_factor", 0.5)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"price file {source} lacks {error}; its form is that of {SHIPPED}") from None

    def rate(self, model: str) -> tuple[float, float]:
        """Dollars per input and output token; ValueError for a model without a price."""
        if model not in self.models:
            raise ValueError(
                f"no price is known for model {model!r} (the price file of {self.as_of} has "
                f"{sorted(self.models)}); put it into a price file and give annotator.prices=<file>"
            )
        dollars_in, dollars_out = self.models[model]
        return dollars_in / 1e6, dollars_out / 1e6


@dataclass
class Meter:
    """Dollars spent and reserved, against `max_usd`; without prices the server is free."""

    prices: Prices | None
    max_usd: float
    batch: bool = False
    spent: float = 0.0
    reserved: dict[int, float] = field(default_factory=dict)
    counted_bytes_per_token: float | None = None

    def dearest(self, request: Request) -> float:
        """Most dollars of a request: few bytes per token, and an answer of `max_tokens`."""
        return self._dollars(request.model, request.n_bytes / BYTES_PER_TOKEN, request.max_tokens)

    def expected(self, requests: Sequence[Request]) -> float:
        """Dollars for these requests with typical answers and the counted bytes per token."""
        per_token = self.counted_bytes_per_token or BYTES_PER_TOKEN
        return sum(
            self._dollars(request.model, request.n_bytes / per_token, min(TYPICAL_OUTPUT, request.max_tokens))
            for request in requests
        )

    def affords(self, request: Request) -> bool:
        """Whether `dearest` of this request fits under the limit."""
        if self.prices is None:
            return True
        return self.spent + sum(self.reserved.values()) + self.dearest(request) <= self.max_usd

    def billed(self, model: str, message: Mapping[str, Any], *, reserve: float) -> float:
        """Dollars for a reply, from its usage (cache writes 1.25x, reads 0.1x of an input token).

        Usage that is absent, no count, or beyond the reserve is billed at the reserve.
        """
        usage = message.get("usage")
        if self.prices is None or not isinstance(usage, Mapping):
            return reserve
        written, read = "cache_creation_input_tokens", "cache_read_input_tokens"
        n_input, n_output = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
        n_written, n_read = _count(usage.get(written) or 0), _count(usage.get(read) or 0)
        if n_input is None or n_output is None or n_written is None or n_read is None:
            return reserve
        cost = self._dollars(model, n_input + 1.25 * n_written + 0.1 * n_read, n_output)
        return min(cost, reserve)

    def reserve_of(self, model: str, body: Mapping[str, Any]) -> float:
        """Reserve of a recorded request, for `Ledger.mend`."""
        if self.prices is None or model not in self.prices.models:
            return 0.0
        texts = [body.get("system") or "", *(message["content"] for message in body["messages"])]
        n_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        return self._dollars(model, n_bytes / BYTES_PER_TOKEN, body["max_tokens"])

    def _dollars(self, model: str, n_input: float, n_output: float) -> float:
        if self.prices is None:
            return 0.0
        dollars_in, dollars_out = self.prices.rate(model)
        factor = self.prices.batch_factor if self.batch else 1.0
        return factor * (n_input * dollars_in + n_output * dollars_out)


def _count(value: Any) -> int | None:
    """A reply's number of tokens; None where it is no such number."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS
    return value if usable else None
