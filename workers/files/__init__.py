"""Folders and bytes on a worker's disk: artifacts, whole folders, full disks. Knows no job and no tensor."""
