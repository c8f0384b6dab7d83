"""``lumos …`` and ``python -m lumos …``: the command of the benchmark suite."""

import sys


def main() -> None:
    """Run the command, or say what it needs where only the engine is installed."""
    try:
        from lumos.suite.cli import main as command
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "lumos":
            raise
        sys.exit(f"lumos: the command needs the package {error.name}; pip install 'lumos-sciml[suite]'")
    command()


if __name__ == "__main__":
    main()
