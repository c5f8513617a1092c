"""Processes and their children: started, kept running and ended, from both sides.

Needs only the standard library and structlog. Used by `luthierd up`, the keeper of vLLM, the trainer and the
integrations; also inside vLLM's own environment.
"""
