"""The command `luthierd`: one file per larger command; `cli` parses."""
