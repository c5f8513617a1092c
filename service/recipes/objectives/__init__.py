"""The built-in objectives, one file each; imported by `service.recipes`."""
