"""What a collection's variables are, how each is stored, and how values are encoded so."""

from .schema import Schema, SchemaVariable, Values, Variable

__all__ = ["Schema", "SchemaVariable", "Values", "Variable"]
