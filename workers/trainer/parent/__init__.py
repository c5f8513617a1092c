"""The supervisor's side of the trainer: starts the process, seats jobs, passes its reports to them. Uses no tensors."""
