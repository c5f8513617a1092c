"""The composition root: settings become a Context, in one place. Whoever needs a part receives it."""
