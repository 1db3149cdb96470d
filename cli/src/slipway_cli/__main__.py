"""Entry point of ``slipway`` (and of ``kubectl slipway``, when installed under that name)."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from slipway_cli.commands import app
from slipway_operator.builder.errors import StepFailed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    try:
        app(list(sys.argv[1:] if arguments is None else arguments), exit_on_error=True, result_action="return_value")
    except StepFailed as failed:
        print(f"slipway: {failed.reason}: {failed.message}", file=sys.stderr)
        return 1
    except OSError as error:
        # A full disk, a folder that may not be written to: the machine's, not a bug of ours.
        print(
            f"slipway: {error.strerror}: {error.filename}" if error.filename else f"slipway: {error}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
