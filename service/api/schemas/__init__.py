"""Wire models, one file per noun: OpenAI's names, types and order of keys."""
