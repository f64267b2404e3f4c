"""``python -m ventris`` is ``ventris``; the entry point of both."""

import sys

from ventris.cli.interrupts import remember_interrupts, take_interrupt


def main() -> int:
    """Run the command line; Ctrl-C is quiet from the very first import on."""
    remember_interrupts()
    try:
        from ventris.cli.main import main as run

        return run()
    except BaseException:  # whatever an import made of the interrupt
        if not take_interrupt():
            raise
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
