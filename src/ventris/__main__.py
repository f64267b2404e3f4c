"""``python -m ventris`` is ``ventris``; the entry point of both."""

import os
import sys
from contextlib import suppress

from ventris.cli.interrupts import INTERRUPTED, remember_interrupts, take_interrupt


def main() -> int:
    """Run the command line; Ctrl-C is quiet from the very first import on."""
    status = _run()
    if status == INTERRUPTED:
        # Threads may still be computing, and would crash while the interpreter is taken apart beneath them.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    return status


def _run() -> int:
    remember_interrupts()
    try:
        from ventris.cli.main import main as run

        return run()
    except BaseException:  # whatever an import made of the interrupt
        if not take_interrupt():
            raise
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
