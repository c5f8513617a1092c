"""The supervisor's side of the trainer: starts the child, seats jobs, hands its reports on. Holds no tensor."""
