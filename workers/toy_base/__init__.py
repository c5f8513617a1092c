"""The bundled base: `luthier-tiny`, a toy decoder that ships with the project, and the command that makes it.

Has no jobs, tunings or service: the folder is loaded like that of any other base model.
"""
