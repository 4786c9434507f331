"""The command line: `python run.py ...` and the `crossdiff` console command."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossdiff.config import Experiment

EXIT_USER, EXIT_BUG, EXIT_INTERRUPTED = 2, 1, 130
EXIT_READER_GONE = 141
"""Exit code that a shell reports for a program ended by SIGPIPE."""


def main() -> None:
    """Run the command line and exit: 0 done, 2 for a mistake that the user can mend, 1 for a bug of ours."""
    if sys.argv[1:] == ["--version"]:
        print(f"crossdiff {_version()}")
        return
    sys.argv[1:] = arranged(sys.argv[1:])
    sys.exit(guarded(_run))


def arranged(arguments: list[str]) -> list[str]:
    """Arguments as Hydra wants them: `-m` first, and `~/` expanded in values.

    Hydra's grammar has no `~` in a value, and the shell expands one only at the start of a word.
    """
    flags = [text for text in arguments if text in ("-m", "--multirun")]
    others = [text for text in arguments if text not in flags]
    home = os.path.expanduser("~")
    return flags + [re.sub(r"(?<=[=\[,])~(?=/)", lambda _: home, text) for text in others]


def _version() -> str:
    from crossdiff import __version__

    return __version__


def guarded(command) -> int:
    """Call `command`; a mistake that the user can mend becomes one message and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        code = command() or 0
        sys.stdout.flush()  # here, so that only a reader that has ended raises BrokenPipeError below
        return code
    except KeyboardInterrupt:
        print(
            "\ninterrupted; finished steps are kept, and the same command continues from here",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _reader_is_gone():
            traceback.print_exc()
            return EXIT_BUG
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_GONE
    except Exception as error:  # noqa: BLE001  the outermost handler
        message = user_message(error)
        if message is None:
            traceback.print_exc()
            return EXIT_BUG
        if os.environ.get("CROSSDIFF_TRACEBACK"):
            traceback.print_exc()
        from crossdiff.io.environment import command as called

        print(f"error: {message.replace('python run.py', called())}", file=sys.stderr)
        return EXIT_USER


def _reader_is_gone() -> bool:
    """Whether the reader of our output (`| head`) has ended."""
    try:
        watch = select.poll()
        watch.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in watch.poll(0))
    except (OSError, ValueError):
        return False


def user_message(error: BaseException) -> str | None:
    """The message for a mistake that the user can mend; None for a bug of ours."""
    from crossdiff import mistakes
    from crossdiff.io.environment import is_full_disk, raised_by_us

    hint = mistakes.explain(error)
    if hint is not None:
        return hint
    if isinstance(error, ValueError) and raised_by_us(error):
        return str(error)
    if is_full_disk(error):
        return _no_space(getattr(error, "filename", None))
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return f"{error.strerror}: all are full or closed; free some space, or give TMPDIR=..."
    if _is_full_memory(error):
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return (
            f"out of memory ({reason}); give a smaller dictionary.n_latents or training.batch_size (or, in a "
            "forward pass, source.batch_tokens), or a larger machine; finished steps are kept"
        )
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return _no_access(error)
    return None


def _no_space(name: object) -> str:
    """The message for a full disk, which may be that of temporary files; `name` is the error's file name."""
    path = os.fsdecode(name) if isinstance(name, str | bytes) else None
    return (
        f"no space left on the device ({path or 'store'}); free some and run the same command again, which "
        f"continues from here, or give another store=...{' or TMPDIR=...' if _is_temporary(path) else ''}"
    )


def _is_temporary(path: str | None) -> bool:
    """Whether the path lies in the folder of temporary files; False where the disks of all such are full."""
    import tempfile

    with suppress(OSError):
        return path is not None and Path(path).is_relative_to(tempfile.gettempdir())
    return False


def _no_access(error: OSError) -> str:
    """The message for a path that this user cannot read or, else, write."""
    closed = error.filename and _closed(Path(os.fsdecode(error.filename)))
    if closed:
        rights = "u+rx" if closed.is_dir() else "u+r"
        return (
            f"{closed} cannot be read by this user ({error.strerror}); change that with "
            f"`chmod {rights} {closed}` (its owner can), or give a copy that you may read"
        )
    return f"{error.filename} cannot be written ({error.strerror}); give another store=... or results_dir=..."


def _closed(path: Path) -> Path | None:
    """`path` or its nearest existing parent, if this user may not read it."""
    for place in (path, *path.absolute().parents):
        if os.path.exists(place):
            wanted = os.R_OK | os.X_OK if os.path.isdir(place) else os.R_OK
            return None if os.access(place, wanted) else place
    return None


def _is_full_memory(error: BaseException) -> bool:
    """Whether this machine or its accelerator lacks memory; PyTorch's CPU allocator raises a RuntimeError."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    texts = ("can't allocate memory", "DefaultCPUAllocator: not enough memory")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def _run() -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from crossdiff import composition
    from crossdiff.io.environment import conf_dir

    collected: list[tuple[Experiment, list[str]]] = []
    mistakes: list[Exception] = []
    sweeps: list[Path] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def compose(cfg) -> None:
        composed = HydraConfig.get()
        try:
            experiment = _typed(cfg, composed)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            if composition.runs_alone(composed):
                raise
            return mistakes.append(error)  # kept from Hydra, which would print a line of its own before ours
        if composition.runs_alone(composed):
            if code := _act([experiment]):
                sys.exit(code)
        else:
            collected.append((experiment, list(composed.overrides.task)))
            sweeps.extend(composition.sweep_folders(composed))

    composition.shorten_commands(conf_dir())
    compose()
    if mistakes:
        raise mistakes[0]
    if not collected:
        return 0
    points = _apart(collected)
    if points[0].plan or points[0].action == "plan":
        for sweep in sweeps[:1]:
            _remove_empty(sweep)
    return _act(points)


def _typed(cfg, composed) -> Experiment:
    from crossdiff.config import load_typed  # imported late: --help needs no settings class

    return load_typed(cfg, composed)


def _apart(collected):
    """The grid points of a sweep, each with a results folder of its own."""
    from crossdiff.config import NEEDS_NO_PAIR
    from crossdiff.pipeline.results import own_folders

    if len(collected) == 1 or collected[0][0].action in NEEDS_NO_PAIR:
        return [point for point, _ in collected]
    folders = own_folders(
        [point.results for point, _ in collected], [overrides for _, overrides in collected]
    )
    return [
        point if folder == point.results else point.model_copy(update={"results_dir": folder})
        for (point, _), folder in zip(collected, folders, strict=True)
    ]


def _remove_empty(sweep: Path) -> None:
    """Remove what Hydra made for a sweep that is only planned: its record and the empty folders."""
    (sweep / "multirun.yaml").unlink(missing_ok=True)
    inside = [path for path in sweep.iterdir() if path.is_dir()] if sweep.is_dir() else []
    for folder in (*inside, sweep, *list(sweep.parents)[:2]):
        with suppress(OSError):
            folder.rmdir()


def _act(experiments) -> int:
    from crossdiff import actions

    return actions.perform(experiments)


if __name__ == "__main__":
    main()
