"""What a worker does with one claim: validate, train, announce. Read `train` first. Holds no tensor."""
