"""``python -m ventris`` is ``ventris``; the entry point of both."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C is quiet from the very first import on."""
    try:
        from ventris.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
