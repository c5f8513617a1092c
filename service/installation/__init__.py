"""The composition root: settings become a Context, in one place. Code that needs a part receives it."""
