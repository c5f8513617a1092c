"""How many requests and tokens a key may use: one port, in memory and on Redis."""
