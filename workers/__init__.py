"""Everything that holds a tensor: supervisor, trainer, engine. Reaches state only through `service.operations`."""
