"""One owner for each output, in threads and processes."""

import os
import signal
import subprocess
import sys

import pytest

from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.utils.lock import exclusive

_HOLD = "import sys, time; from semanticface.utils.lock import exclusive\n" \
    "with exclusive(sys.argv[1]): print('mine', flush=True); time.sleep(600)"  # fmt: skip


def test_an_output_has_one_owner_and_nothing_is_left(tmp_path):
    with exclusive(tmp_path / "run"):
        with pytest.raises(ConfigError, match="another run is using"), exclusive(tmp_path / "run"):
            pass
        with exclusive(tmp_path / "other"):
            pass
    with exclusive(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(SemanticFaceError, match="cannot write"), exclusive(tmp_path / "file" / "run"):
        pass


def test_a_killed_owner_holds_nothing(tmp_path):
    held = [sys.executable, "-c", _HOLD, str(tmp_path / "run")]
    with subprocess.Popen(held, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(ConfigError, match="another run"), exclusive(tmp_path / "run"):
            pass
        os.kill(owner.pid, signal.SIGKILL)
    with exclusive(tmp_path / "run"):
        pass
    assert not list(tmp_path.iterdir())
