"""Files on a worker's disk: transfers, artifacts and their cache, whole folders, full disks. Has no jobs."""
