"""The HTTP API: OpenAI's wire format in and out. Every decision is made by an operation."""
