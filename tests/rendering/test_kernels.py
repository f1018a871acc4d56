"""The kernel cache is invalidated by any change to the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from semanticface.rendering import kernels

CALLED = "from package.kernels import kernel\n@kernel\ndef tone(x):\n    return x + {}\n"
CALLER = "from package.kernels import kernel\nfrom package.called import tone\n"
CALLER += "@kernel\ndef shade(x):\n    return tone(x)\n"
PROGRAM = "from package.caller import shade; print(shade(1), sum(shade.stats.cache_hits.values()))"


def test_a_kernel_is_recompiled_when_a_kernel_it_calls_changes(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "__init__.py").touch()
    shutil.copy(kernels.__file__, folder / "kernels.py")
    (folder / "caller.py").write_text(CALLER)

    def run() -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout.split()

    (folder / "called.py").write_text(CALLED.format(1))
    assert run() == ["2", "0"]
    assert run() == ["2", "1"], "nothing changed: nothing to compile"
    (folder / "called.py").write_text(CALLED.format(10))
    assert run() == ["11", "0"]
