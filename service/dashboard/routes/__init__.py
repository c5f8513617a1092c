"""The pages, one file per noun, as in `service.api.routes`."""
