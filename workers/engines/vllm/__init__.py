"""A real vLLM: its command and keeper outside, the plugin, middleware and cache inside it."""
