"""``python -m profiling PROGRAM``: the programs that every figure of this project comes from."""

import argparse
import sys
from typing import Protocol

try:
    from . import compare, demo, flower, micro, speed, start
except ImportError as error:
    sys.exit(f"{error}: pip install 'flatrecord[profile]', or use make demo and make profile")


class Program(Protocol):
    """What each of the modules has."""

    __doc__: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the program's options."""

    def main(self, options: argparse.Namespace) -> int:
        """Run the program, and say with which status to exit."""
        ...


PROGRAMS: dict[str, Program] = {
    "compare": compare,
    "demo": demo,
    "flower": flower,
    "micro": micro,
    "speed": speed,
    "start": start,
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m profiling", description=__doc__)
    programs = parser.add_subparsers(dest="program", required=True)
    for name, module in PROGRAMS.items():
        summary = module.__doc__.splitlines()[0]
        module.add_arguments(programs.add_parser(name, help=summary, description=summary))
    return parser


def main() -> int:
    """Run the program that is named on the command line."""
    options = make_parser().parse_args()
    return PROGRAMS[options.program].main(options)


if __name__ == "__main__":
    sys.exit(main())
