"""One request to a `/v1/messages` server, and the ledger's key of its answer."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
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
