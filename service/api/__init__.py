"""The HTTP door: OpenAI's wire format in and out. Decides nothing; every decision is an operation's."""
