"""The control plane: API, state, gateway. Holds no tensor and never imports `workers`."""
