"""The trainer's process: slots, turns, steps, snapshots. Folders in, reports out; no database, bucket or URL."""
