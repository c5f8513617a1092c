"""The built-in tunings, one file each; imported by `service.recipes`."""
