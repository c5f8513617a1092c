"""One file per noun of the API: parse, call one operation, render."""
