"""POST /v1/responses as a translation: its request becomes a chat completion's, whose response becomes its own.

Pure functions on values; HTTP, models and engines are elsewhere. `service.api.routes.responses` puts the two halves
around the one way to the engines that chat completions have.
"""
