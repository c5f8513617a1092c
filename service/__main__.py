"""`python -m service` is `luthierd`."""

from service.commands.cli import main

main()
