"""How other libraries open a collection."""
