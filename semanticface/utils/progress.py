"""Progress reporting: tqdm's bar on a terminal, occasional lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

import tqdm as library

LOG_INTERVAL = 10.0
"""Seconds between lines if the output is not a terminal; shorter work prints none."""


class tqdm(library.tqdm):
    """``tqdm.tqdm`` that prints lines in logs, and nothing before ``delay`` even with messages."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._in_log = not (options.get("file") or sys.stderr).isatty()
        if self._in_log:
            options["delay"] = max(options.get("delay", 0), LOG_INTERVAL)
            options["mininterval"] = LOG_INTERVAL
        self._silent_until = time.time() + options.get("delay", 0)
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Show the bar or ``msg``; in a log, print a line if one is due."""
        if time.time() < self._silent_until:
            return False
        if not self._in_log:
            return super().display(msg, pos)
        self._silent_until = time.time() + LOG_INTERVAL
        self._print_line()
        return False

    def _print_line(self) -> None:
        self.fp.write(self.format_meter(**{**self.format_dict, "ncols": 0}) + "\n")
        self.fp.flush()

    def clear(self, *args: Any, **options: Any) -> None:
        """Clear the bar on a terminal."""
        if not self._in_log:
            super().clear(*args, **options)

    def close(self) -> None:
        """Close the bar; in a log, print a last line if there were any."""
        if self._in_log and not self.disable:
            shown, self._silent_until = self.last_print_t > self.start_t, float("inf")
            leave, self.leave = self.leave, False
            super().close()
            if shown and leave:
                self._print_line()
        else:
            super().close()
