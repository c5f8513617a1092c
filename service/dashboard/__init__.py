"""The dashboard: pages for people, at `/ui` of the API's process. They use operations as the API does, never tables.

Rendered here with Jinja; htmx and uPlot (`packages`) and a few small scripts of ours (`static`) make them live. What a
script asks for, it asks of the API itself, at `/ui/v1` (`app`), with the browser's sign-in instead of a key.
"""
