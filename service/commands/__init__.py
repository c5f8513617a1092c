"""The command `luthierd`: one file per command that has something to say; `cli` parses."""
