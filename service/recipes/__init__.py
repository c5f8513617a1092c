"""A method's torch-free side, one file per method: a tuning, an objective. The tensor side is found by its name.

Importing this package registers the built-in methods, and those of `LUTHIER_EXTENSIONS`; so whatever is built from the
registries (the API's types, documents, checks of a job) has them all. Does not use HTTP, the database or tensors.
"""

from service.recipes.registry import import_methods

import_methods()
