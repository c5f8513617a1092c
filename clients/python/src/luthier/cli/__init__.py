"""The command `luthier`. Each module imports what it needs when a command is chosen, so that `--help` is instant."""
