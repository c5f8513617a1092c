"""`luthierd` several times in one process: `python -m tests.given.luthierd_commands "keys list" "serve" ...`.

Prints the status or the sentence that each ends with.
"""

import sys

from service.commands import cli


def main() -> None:
    for command in sys.argv[1:]:
        sys.argv = ["luthierd", *command.split()]
        try:
            cli.main()
        except SystemExit as end:
            sys.stdout.write(f"{end.code}\n")


if __name__ == "__main__":
    main()
