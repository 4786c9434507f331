"""What a job does on its node, without a cluster."""

import signal
import subprocess
import sys

ENDS = """
import atexit, os, signal
from crossdiff.dispatch.remote import ignore_signals

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGUSR2):
        kill(process, number)
        print("taken down")

signal.signal(signal.SIGUSR2, lambda *_: None)
last = Last()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)


def test_a_signal_after_the_work_is_done_does_not_end_the_process() -> None:
    assert run(ENDS).returncode == -signal.SIGUSR2
    done = run(ENDS + "atexit.register(ignore_signals)")
    assert (done.returncode, done.stdout) == (0, "taken down\n"), done.stderr
