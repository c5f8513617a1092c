"""Engines: processes that serve tokens in vLLM's dialect."""
