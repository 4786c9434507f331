"""What the local Messages server says: every reply is a function of the request alone, faults included."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Faults:
    """Shares of requests that go wrong, and how often a batch call does.

    `refused`, `truncated` and `off_schema` belong to a request's content, so that they come again however
    often it is sent; `rate_limited`, `overloaded` and `reset` belong to one arrival of it.
    """

    rate_limited: float = 0.0
    overloaded: float = 0.0
    reset: float = 0.0
    refused: float = 0.0
    truncated: float = 0.0
    off_schema: float = 0.0
    retry_after: str = "0.2"
    lost_creates: int = 0
    cut_results: int = 0
    quiet_cuts: int = 0


def text_of(body: dict[str, Any]) -> str:
    """Everything the model would read."""
    return "\n".join([body.get("system") or "", *(message["content"] for message in body["messages"])])


def body_hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def uniform(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` only."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def reply(body: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """The message that answers `body`; its usage counts four characters as a token."""
    key = body_hash(body)
    answer = json.dumps(_answer(body, key, off_schema=uniform("off", key) < faults.off_schema))
    stop_reason, content = "end_turn", [{"type": "text", "text": answer}]
    if "FORBIDDEN" in text_of(body) or uniform("refuse", key) < faults.refused:
        stop_reason, content = "refusal", []
    elif uniform("cut", key) < faults.truncated:
        stop_reason, content = "max_tokens", [{"type": "text", "text": answer[: len(answer) // 2]}]
    n_output = sum(len(block["text"]) for block in content) // 4
    return {
        "id": f"msg_{key[:16]}", "type": "message", "role": "assistant", "model": body["model"],
        "content": content, "stop_reason": stop_reason, "stop_sequence": None,
        "usage": {"input_tokens": len(text_of(body)) // 4, "output_tokens": n_output},
    }  # fmt: skip


def _answer(body: dict[str, Any], key: str, *, off_schema: bool) -> dict[str, Any]:
    system = body.get("system") or ""
    blocks = len(re.findall(r"<(?:document|example) index=", body["messages"][0]["content"]))
    if off_schema:
        return {"category": "no such category", "matches": "all", "intruder": -1}
    if '"matches"' in system:
        return {"matches": [index for index in range(blocks) if uniform("match", key, index) < 0.5]}
    if '"shown"' in system:
        return {"shown": "I cannot" in body["messages"][0]["content"]}
    if '"intruder"' in system:
        return {"intruder": int(uniform("intruder", key) * blocks)}
    if '"classes"' in system:
        return _taxonomy(body)
    return _vote(body, key, blocks)


def _vote(body: dict[str, Any], key: str, blocks: int) -> dict[str, Any]:
    """Votes on the same documents agree, whatever their order, but for one in six."""
    listed = re.search(r"<categories>\n(.*)\n</categories>", body.get("system") or "", re.DOTALL)
    names = re.findall(r"(?m)^- (\w+):", listed.group(1)) if listed else ["other"]
    examples = re.split(r"<example index=\"\d+\">", body["messages"][0]["content"])
    topic = uniform("topic", sorted(text.strip() for text in examples))
    if uniform("stray", key) < 1 / 6:
        topic = uniform("stray topic", key)
    category = names[int(topic * len(names))]
    return {
        "label": f"about {category}", "description": f"Documents on {category}.", "category": category,
        "evidence": list(range(0, blocks, 2)), "confidence": 1 + int(5 * uniform("sure", key)),
    }  # fmt: skip


def _taxonomy(body: dict[str, Any]) -> dict[str, Any]:
    """Two classes of two categories each, whatever was described."""
    categories = [
        {"name": name, "title": name.title(), "definition": f"Texts on {name}.", "cues": [name]}
        for name in ("tongues", "numbers", "tales", "laws")
    ]
    return {
        "classes": [
            {"name": "first", "title": "First", "categories": categories[:2]},
            {"name": "second", "title": "Second", "categories": categories[2:]},
        ]
    }
