"""Folders and bytes on a worker's disk: transfers, artifacts and their cache, whole folders, full disks. No jobs."""
