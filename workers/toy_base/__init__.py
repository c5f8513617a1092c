"""The bundled base: `luthier-tiny`, a toy decoder that ships with the project, and the command that makes it.

Knows nothing about jobs, tunings or the service: whoever loads the folder treats it like any other base model.
"""
