"""Where the program starts: as `ulvm`, or `python -m ulvm.cli.start`.

Most commands import what they need, work for a moment and end. To look for cycles among what they
imported, every few hundred objects and once more at the end, takes a tenth of such a command.

Who passes over SIGCHLD has the programs that it starts pass over it too. They never learn then how
their own children ended, and Python takes that for success.
"""

from __future__ import annotations

import gc
import signal
import sys

__all__ = ["main"]

_OBJECTS = 50_000
"""Made between two looks for cycles (gc.set_threshold); commands that go on for long have them."""


def main() -> int:
    """The entry point; its words are the process's."""
    gc.set_threshold(_OBJECTS)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        from ulvm.cli.main import main as program  # Imported after that.

        status = program()
    except KeyboardInterrupt:  # While it was imported, or had ended.
        print("  Interrupted...", file=sys.stderr)
        return 130
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
