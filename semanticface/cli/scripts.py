"""Command lines of the scripts in ``train/``, ``eval/`` and ``data_prep/``."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

QUICKSTART_FACES = "--styles imp=1 --subject 7 --rows 800 --splits train=0.7,validation=0.1,test=0.2"
"""Options of data_prep/render_faces.py for the quickstart's character."""

COMMANDS = {
    "train/distill.py": "train",
    "train/prefer.py": "prefer",
    "eval/evaluate.py": "evaluate",
    "data_prep/render_faces.py": "render-faces",
    "data_prep/import_livelink.py": "import livelink",
    "data_prep/import_pictures.py": "import pictures",
    "data_prep/import_swift.py": "import swift",
    "data_prep/describe.py": "write-answers",
}
"""Scripts that are subcommands of ``semanticface`` too."""


class ScriptParser(argparse.ArgumentParser):
    """A parser that takes its ``--help`` from a docstring and answers a usage error with one line.

    Args:
        doc: the script's docstring; an indented line of it is an example command. Where the script runs as a command,
            examples show that.
    """

    def __init__(self, doc: str | None, **options: Any) -> None:
        name = Path(sys.argv[0]).name
        if doc is not None and name.startswith("semanticface "):
            for script, command in COMMANDS.items():
                doc = re.sub(rf"(?:python|accelerate launch) {re.escape(script)}", f"semanticface {command}", doc)
        super().__init__(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, with the message and an example command."""
        text = re.sub(r"\\\n\s*", "", self.description or "")
        found = re.search(rf"^ {{4}}(\S.*{re.escape(self.prog)}.*?)(?:\s+#.*)?$", text, re.MULTILINE)
        found = found or re.search(rf"^ {{4}}({re.escape(self.prog)}.*?)(?:\s+#.*)?$", text, re.MULTILINE)
        example = f" For example: {found[1]}" if found else ""
        self.exit(2, f"{self.prog}: {message}.{example} (--help says more)\n")
