"""What an operator can set, how a process reads it, and how it logs. Does not use the parts that are set."""
