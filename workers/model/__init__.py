"""A base in memory, the adapters attached to it, and generation. Does not depend on jobs, requests or engines."""
