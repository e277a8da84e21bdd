"""The bundled model and the code that trained it."""
