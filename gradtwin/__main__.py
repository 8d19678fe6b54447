"""`gradtwin`, and `python -m gradtwin`."""

import sys


def main() -> None:
    try:
        from .comparisons.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
