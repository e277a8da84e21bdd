"""Training and export of the bundled model, one module per concern."""
