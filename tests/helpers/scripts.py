"""The repository's scripts as modules, for tests of what is in them. Not a test file."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_script(path: str) -> ModuleType:
    """Return a script such as ``eval/evaluate.py`` as a new module; ``__name__`` is not that of a main program."""
    name = f"script_{Path(path).stem}"  # no package has such a name, whereas there is one called evaluate
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look for the names in their annotations
    spec.loader.exec_module(module)
    return module
