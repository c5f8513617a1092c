"""The trainer's process: slots, turns, steps, snapshots. Sees folders and reports; no database, bucket or URL."""
