"""What requests cost: a dated price file that can be overridden, an estimate before, a meter during."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossdiff.annotation.api.requests import Request

SHIPPED = Path(__file__).with_name("prices.yaml")
BYTES_PER_TOKEN = 2.5
"""Deliberately low (English has about 4), so that what is reserved errs on the dear side."""
MAX_TOKENS = 1_000_000_000
"""A count beyond this is none."""
TYPICAL_OUTPUT = 250
"""Output tokens of a typical answer, for the estimate before the run; the budget reserves `max_tokens`."""


@dataclass(frozen=True)
class Prices:
    """US dollars per million input and output tokens by model, and the factor of a batch."""

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
        """Dollars per input and output token; an unknown model is refused, since a budget needs its price."""
        if model not in self.models:
            raise ValueError(
                f"no price is known for model {model!r} (the price file of {self.as_of} has "
                f"{sorted(self.models)}); put it into a file of your own and give annotator.prices=<file>"
            )
        dollars_in, dollars_out = self.models[model]
        return dollars_in / 1e6, dollars_out / 1e6


@dataclass
class Meter:
    """Money spent and reserved; refuses a request that could pass `max_usd`. A free server has no prices."""

    prices: Prices | None
    max_usd: float
    batch: bool = False
    spent: float = 0.0
    reserved: dict[int, float] = field(default_factory=dict)
    counted_bytes_per_token: float | None = None

    def dearest(self, request: Request) -> float:
        """Dollars if the prompt has few bytes per token and the answer takes all the room it has."""
        return self._dollars(request.model, request.n_bytes / BYTES_PER_TOKEN, request.max_tokens)

    def expected(self, requests: Sequence[Request]) -> float:
        """Dollars for these requests with answers of typical length; prompts as `count_tokens` measured."""
        per_token = self.counted_bytes_per_token or BYTES_PER_TOKEN
        return sum(
            self._dollars(request.model, request.n_bytes / per_token, min(TYPICAL_OUTPUT, request.max_tokens))
            for request in requests
        )

    def affords(self, request: Request) -> bool:
        """Whether the dearest outcome of this request still fits under the limit."""
        if self.prices is None:
            return True
        return self.spent + sum(self.reserved.values()) + self.dearest(request) <= self.max_usd

    def billed(self, model: str, message: Mapping[str, Any], *, reserve: float) -> float:
        """Dollars for a reply, from its own usage (cache writes 1.25x, reads 0.1x of an input token).

        Usage that is absent, no count, or beyond what was reserved for the request is billed at the reserve.
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
        """What was reserved for a recorded request, for bills that an older version could not read."""
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
    """A number of tokens as a reply gives it; None where it is none."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_TOKENS
    return value if usable else None
