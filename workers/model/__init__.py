"""A base in memory, adapters on it, tokens out of it. Below trainer and engines; knows no job and no request."""
