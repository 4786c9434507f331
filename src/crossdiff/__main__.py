"""The command line: `python run.py ...` and the `crossdiff` console command."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
EXIT_USER, EXIT_BUG, EXIT_INTERRUPTED = 2, 1, 130


def main() -> None:
    """Run the command line and exit: 0 done, 2 for what the user can put right, 1 for a bug of ours."""
    sys.exit(guarded(_run))


def guarded(command) -> int:
    """Call `command` and turn what a user can put right into one message and exit code 2."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        return command() or 0
    except KeyboardInterrupt:
        print("\ninterrupted; nothing finished is lost, the same command goes on from here", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001  the one place that may see every failure
        message = user_message(error)
        if message is None:
            traceback.print_exc()
            return EXIT_BUG
        if os.environ.get("CROSSDIFF_TRACEBACK"):
            traceback.print_exc()
        print(f"error: {message}", file=sys.stderr)
        return EXIT_USER


def user_message(error: BaseException) -> str | None:
    """What to tell the user about `error`; None when it is a bug of ours."""
    from crossdiff import config

    hint = config.explain(error)
    if hint is not None:
        return hint
    if _is_full_disk(error):
        return (
            f"no space left on the device ({getattr(error, 'filename', None) or 'store'}); free some and run "
            "the same command again, which goes on from here, or give another store=..."
        )
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return (
            f"{error.filename} cannot be written ({error.strerror}); "
            "give another store=... or results_dir=..."
        )
    if isinstance(error, ValueError) and _raised_by_us(error):
        return str(error)
    return None


def _is_full_disk(error: BaseException) -> bool:
    """A full disk or quota; safetensors and others report it by its text alone."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return os.strerror(errno.ENOSPC) in str(error)


def _raised_by_us(error: BaseException) -> bool:
    """True when the exception was raised by a line of this package, so its text was written for people."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def _run() -> int:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    from crossdiff import config
    from crossdiff.io.environment import conf_dir

    collected: list[tuple[config.Experiment, list[str]]] = []
    mistakes: list[Exception] = []

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def compose(cfg) -> None:
        try:
            experiment = config.load(cfg)
        except HydraException as error:  # kept from Hydra, which would print a line of its own before ours
            mistakes.append(error)
            return
        if config.runs_alone(HydraConfig.get()):
            code = _act([experiment])
            if code:
                sys.exit(code)
        else:
            collected.append((experiment, list(HydraConfig.get().overrides.task)))

    config.compose_once()
    compose()
    if mistakes:
        raise mistakes[0]
    return _act(_apart(collected)) if collected else 0


def _apart(collected):
    """The grid points of a sweep, each with a results folder of its own."""
    from crossdiff.config import NEEDS_NO_PAIR
    from crossdiff.pipeline.results import own_folders

    if len(collected) == 1 or collected[0][0].action in NEEDS_NO_PAIR:
        return [point for point, _ in collected]
    folders = own_folders([point.results for point, _ in collected], [own for _, own in collected])
    return [
        point if folder == point.results else point.model_copy(update={"results_dir": folder})
        for (point, _), folder in zip(collected, folders, strict=True)
    ]


def _act(experiments) -> int:
    from crossdiff import actions

    return actions.perform(experiments)


if __name__ == "__main__":
    main()
