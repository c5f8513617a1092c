"""Processes and their children: started, kept running and ended, from both sides.

Needs only the standard library and structlog. Used by `luthierd up`, vLLM's parent process, the trainer and
the integrations; also inside vLLM's own environment.
"""
