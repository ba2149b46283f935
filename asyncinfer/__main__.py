"""Entry point of ``asyncinfer`` and of ``python -m asyncinfer``. Rule: what needs no library, loads none."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"], ["version"]):
        from . import __version__

        sys.stdout.write(f"asyncinfer {__version__}\n")
        return
    try:
        from .cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed while the program was still being loaded
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
