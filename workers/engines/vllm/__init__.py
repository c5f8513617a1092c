"""A real vLLM: its command line and parent process outside; the plugin, the middleware and the statistics inside it."""
