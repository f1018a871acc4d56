"""Progress bars: a line now and then in a log, and on a terminal nothing left over from a bar that was never due."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest

from semanticface.utils import progress

WORK = """
import sys, time
from semanticface.utils import progress
progress.LOG_INTERVAL = 0.2
for i in progress.tqdm(range(30), desc="rendering", unit="row"):
    time.sleep(0.02)
    if i in (3, 20):
        progress.tqdm.write(f"bad row {i}", file=sys.stderr)
for i in progress.tqdm(range(3), unit="short", delay=60, leave=False):
    progress.tqdm.write(f"short {i}", file=sys.stderr)
print("out.glb: 3 rows", file=sys.stderr)
"""


def test_a_log_gets_whole_lines_and_few():
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    *rest, last = done.stderr.splitlines()
    bars = [line for line in rest if line.startswith("rendering:")]
    assert 2 <= len(bars) < 15 and "30/30" in bars[-1]
    assert [line for line in rest if line not in bars] == ["bad row 3", "bad row 20", "short 0", "short 1", "short 2"]
    assert last == "out.glb: 3 rows"


@pytest.mark.parametrize("leave", [True, False])
def test_short_work_leaves_no_line_in_a_log(capsys, leave):
    assert list(progress.tqdm(range(3), leave=leave)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_bar_and_no_remains_of_one_that_was_not_due():
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", WORK], stderr=follower)
    os.close(follower)
    written = b""
    while process.poll() is None or written == b"":
        try:
            written += os.read(leader, 4096)
        except OSError:
            break
        time.sleep(0.01)
    os.close(leader)
    text = written.decode()
    assert process.wait() == 0
    assert "30/30" in text and "?short/s" not in text
    assert text.rstrip().splitlines()[-1].endswith("out.glb: 3 rows")
