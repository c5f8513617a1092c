"""What an operator can set, how a process reads it, and what it logs with it. Knows no part that is set."""
