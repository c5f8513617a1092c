"""The built-in row formats, one file each; imported by `service.recipes`."""
