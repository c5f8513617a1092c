"""What the words of the service mean: standard library and pydantic only, no database, no HTTP."""
