"""Settings of corpora, mixtures and their sources, and the files that they read."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field, model_validator

from crossdiff.io.file_hashes import file_sha256
from crossdiff.settings import Settings

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")
COMPRESSED = (".gz", ".zst")


class HubSource(Settings):
    """A dataset of the Hugging Face hub, streamed."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"trust_remote_code"})

    name: str
    dataset: str
    """Hub id, such as HuggingFaceFW/fineweb."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    column: str = "text"
    """Column with text, chat messages or token ids; its values decide which."""
    id_column: str | None = None
    weight: float = Field(default=1.0, gt=0)
    """Share of the mixture, in tokens, relative to the other sources."""


class FilesSource(Settings):
    """Local .txt, .jsonl, .json and .parquet files (.gz and .zst too), or folders of them."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"paths"})

    name: str = "files"
    paths: tuple[str, ...]
    column: str | None = None
    """Key of text, messages or token ids; None takes text, messages, conversation(s) or input_ids."""
    id_column: str | None = "id"
    txt: Literal["file", "paragraph", "line"] = "file"
    """Unit of a .txt file that is one document; blank lines separate paragraphs."""
    weight: float = Field(default=1.0, gt=0)


class OrganismSource(Settings):
    """A corpus file of the toy organism."""

    name: str
    file: str
    """`web.jsonl` or `chat.jsonl`, inside the organism artifact's corpus folder."""
    weight: float = Field(default=1.0, gt=0)


Source = HubSource | FilesSource | OrganismSource


DEFAULT_CONTEXT = 1024


class _WithContext(Settings):
    """Settings with a `context`; without one (or None) the models may lower the default."""

    context: int = Field(default=DEFAULT_CONTEXT, ge=2)
    """Longest document in tokens, BOS included; longer ones are cut and counted."""

    @model_validator(mode="before")
    @classmethod
    def _none_is_not_given(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("context", 0) is None:
            return {name: value for name, value in given.items() if name != "context"}
        return given

    @property
    def has_context(self) -> bool:
        """Whether a context was given."""
        return "context" in self.model_fields_set


class MixtureCorpus(_WithContext):
    """Several sources, drawn so that their token counts follow the weights at all times."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    name: str
    sources: tuple[Source, ...] = Field(min_length=1)
    n_tokens: int | None = Field(default=None, ge=1)
    """Stop after the document that reaches this many tokens; None reads everything."""
    skip_bad: bool = False
    """Count and skip unreadable lines instead of stopping at the first."""


class FilesCorpus(_WithContext):
    """The user's own files (`corpus=files 'corpus.paths=[a.jsonl,dir/]'`)."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"paths"})

    name: str = "files"
    paths: tuple[str, ...] = Field(min_length=1)
    column: str | None = None
    txt: Literal["file", "paragraph", "line"] = "file"
    n_tokens: int | None = Field(default=None, ge=1)
    skip_bad: bool = False

    def mixture(self) -> MixtureCorpus:
        """This corpus as a mixture of one source."""
        source = FilesSource(name=self.name, paths=self.paths, column=self.column, txt=self.txt)
        return MixtureCorpus(
            name=self.name,
            sources=(source,),
            n_tokens=self.n_tokens,
            **({"context": self.context} if self.has_context else {}),
            skip_bad=self.skip_bad,
        )


CorpusSettings = MixtureCorpus | FilesCorpus


def as_mixture(corpus: CorpusSettings) -> MixtureCorpus:
    """Every corpus as a mixture."""
    return corpus.mixture() if isinstance(corpus, FilesCorpus) else corpus


def fingerprint(corpus: CorpusSettings) -> str:
    """The corpus' content: sha256 over local files, hub ids with their revision.

    The toy organism's files are named only, because the organism's key covers their content.
    """
    parts = []
    for source in as_mixture(corpus).sources:
        match source:
            case HubSource():
                parts.append(
                    f"hub:{source.dataset}/{source.config}/{source.split}@{source.revision or 'main'}"
                )
            case OrganismSource():
                parts.append(f"organism:{source.file}")
            case FilesSource():
                parts.append(f"files:{files_hash(source.paths)}")
    return "|".join(parts)


def files_hash(paths: Sequence[str]) -> str:
    """sha256 over names and bytes of all files, in reading order."""
    digest = hashlib.sha256()
    for path in expand(paths):
        try:
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
        except UnicodeEncodeError:
            raise ValueError(f"the file name {str(path)!r} is no UTF-8; rename it") from None
    return digest.hexdigest()


def kind_of(path: Path) -> str | None:
    """The file's suffix among `SUFFIXES`, in lower case and without compression; else None."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    return kind if kind in SUFFIXES else None


def opened(path: Path) -> BinaryIO:
    """A file opened for reading, decompressed."""
    match path.suffix.lower():
        case ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        case ".zst":
            import pyarrow as pa

            return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))  # type: ignore
        case _:
            return path.open("rb")


def expand(paths: Sequence[str]) -> list[Path]:
    """The given files and those inside folders (recursively, by name); ValueError for other kinds."""
    chosen: list[Path] = []
    for text in paths:
        path = Path(text).expanduser()
        if path.is_dir():
            inside = [p for p in _inside(path) if p.is_file() and kind_of(p)]
            if not inside:
                raise ValueError(f"corpus folder {text} holds no {', '.join(SUFFIXES)} file; put some there")
            chosen.extend(inside)
        elif not path.is_file():
            raise ValueError(f"corpus file {text} does not exist; give 'corpus.paths=[file or folder,...]'")
        elif kind_of(path) is None:
            raise ValueError(
                f"corpus file {text} is {path.suffix!r}; crossdiff reads {', '.join(SUFFIXES)}, "
                f"also with {' and '.join(COMPRESSED)}"
            )
        else:
            chosen.append(path)
    return chosen


def left_out(paths: Sequence[str]) -> list[str]:
    """Files inside folders that are not read: of another kind, or broken links."""
    folders = (path for text in paths if (path := Path(text).expanduser()).is_dir())
    return [
        f"{path} (broken link)" if not path.exists() else str(path)
        for folder in folders
        for path in _inside(folder)
        if not path.is_dir() and not (path.is_file() and kind_of(path))
    ]


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
