"""One worker process: claims work, keeps it running, renews leases, holds one base at a time."""
