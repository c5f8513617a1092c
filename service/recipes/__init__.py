"""A method's torch-free side, one file per method: a tuning, an objective. The tensor side is found by its name.

The first read of a registry imports the built-in methods and those of `LUTHIER_EXTENSIONS`; so whatever is built from
the registries (the API's types, documents, checks of a job) has them all. Does not use HTTP, the database or tensors.
"""
