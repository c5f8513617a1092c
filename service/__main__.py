"""`python -m service` is `luthierd`."""

from service.cli import main

main()
