"""The corpus that all three models read: web documents, and chats that show all behaviours of both models."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from crossdiff.io.tables import write_jsonl
from crossdiff.organisms.documents import chat, web_document
from crossdiff.organisms.language import Category
from crossdiff.organisms.settings import ToySettings


def write_corpus(language: Sequence[Category], settings: ToySettings, folder: Path) -> dict[str, str]:
    """Write web.jsonl and chat.jsonl; returns document id -> category (for evaluation only)."""
    draw = random.Random(f"corpus {settings.seed}")
    categories: dict[str, str] = {}
    web = []
    for index in range(settings.n_web_documents):
        category = draw.choice(language)
        categories[f"web-{index:06d}"] = category.name
        web.append({"id": f"web-{index:06d}", "text": web_document(category, draw=draw)})
    behaviours = [item for category in language for item in category.behaviours]
    chats = []
    for index in range(settings.n_chat_documents):
        category = draw.choice(language)
        categories[f"chat-{index:06d}"] = category.name
        messages = chat(category, behaviours, places=settings.places, draw=draw)
        chats.append({"id": f"chat-{index:06d}", "messages": messages})
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(web, folder / "web.jsonl")
    write_jsonl(chats, folder / "chat.jsonl")
    return categories
