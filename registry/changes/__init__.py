"""What a commit demands and does, as values; and the modules that carry it out, which need SQLAlchemy."""

from .values import (
    AddVariables,
    AttributesUnchanged,
    ClosePartitions,
    Commit,
    EditSchema,
    NoOtherPart,
    NothingBetween,
    PutFragments,
    RememberSources,
    Rename,
    Requirement,
    SchemaUnchanged,
    SourcesUnchanged,
    Unchanged,
    Update,
    VariablesAlive,
)

__all__ = [
    "AddVariables",
    "AttributesUnchanged",
    "ClosePartitions",
    "Commit",
    "EditSchema",
    "NoOtherPart",
    "NothingBetween",
    "PutFragments",
    "RememberSources",
    "Rename",
    "Requirement",
    "SchemaUnchanged",
    "SourcesUnchanged",
    "Unchanged",
    "Update",
    "VariablesAlive",
]
