"""The mistakes: what each changes in the source, and which tests have to notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """A text that occurs once in a file, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """A mistake; most need one edit."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    """What pytest is called with: fast tests, of which at least one has to fail."""


MUTATIONS = (
    Mutation(
        "a run of rows is lost where several inputs share a key",
        (
            Edit(
                "intake_zcollection/partitioning/rows.py",
                "pieces.setdefault(key, []).append((number, rows))",
                "pieces[key] = [(number, rows)]",
            ),
        ),
        ("tests/unit/test_partitioning.py",),
    ),
    Mutation(
        "the rows of our strategies are merged without being sorted",
        (
            Edit(
                "intake_zcollection/merging/strategies.py",
                'order = np.argsort(times, kind="stable")',
                "order = np.arange(len(times))",
            ),
        ),
        ("tests/unit/test_merging.py",),
    ),
    Mutation(
        "the rows that a user's function merged are not sorted",
        (
            Edit(
                "intake_zcollection/writing/merge.py",
                'order = np.argsort(merged.variables[schema.axis].values, kind="stable")',
                "order = np.arange(merged.sizes[schema.dimension])",
            ),
        ),
        ("tests/stateful/test_examples.py",),
    ),
    Mutation(
        "a layer wins over a newer one because its number is higher",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "key=lambda fragment: (-fragment.written_version, -fragment.layer_id)",
                "key=lambda fragment: -fragment.layer_id",
            ),
        ),
        ("tests/behaviour/test_updating.py", "-k", "layers"),
    ),
    Mutation(
        "the values of a dropped variable come back with its name",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "variable.begin_version <= self.schema_version if self.variables is None",
                "True if self.variables is None",
            ),
            Edit("intake_zcollection/schema/schema.py", "if name not in self.stored_names)", "if name)"),
        ),
        ("tests/behaviour/test_variables.py",),
    ),
    Mutation(
        "the rows of the neighbours before are trimmed one short",
        (
            Edit(
                "intake_zcollection/reading/window.py",
                "start = sum(self.sizes[: self.own])",
                "start = max(0, sum(self.sizes[: self.own]) - 1)",
            ),
        ),
        ("tests/behaviour/test_mapping.py", "-k", "neighbours or trim"),
    ),
    Mutation(
        "as many labelled rows as there are are laid by position",
        (
            Edit(
                "intake_zcollection/reading/placing.py",
                "if given.equals(known):\n        return own\n    if known",
                "if len(given) == len(known):\n        return own\n    if known",
            ),
        ),
        ("tests/behaviour/test_placing.py", "-k", "laid"),
    ),
    Mutation(
        "a filter takes the remainder of a negative key as SQL does, and not as Python",
        (
            Edit(
                "registry/sql/where.py",
                "return (_expression(left, columns) % _bind(divisor) + _bind(divisor)) % _bind(divisor)",
                "return _expression(left, columns) % _bind(divisor)",
            ),
        ),
        ("tests/registry/test_predicate.py", "-k", "python or divi or agrees"),
    ),
    Mutation(
        "what a filter changed is put down",
        (Edit("intake_zcollection/storage/write.py", "if codec.inexact:", "if False:"),),
        ("tests/behaviour/test_exactness.py", "-k", "shards"),
    ),
    Mutation(
        "codecs that give back every bit are asked whether they do",
        (Edit("intake_zcollection/storage/write.py", "if codec.inexact:", "if True:"),),
        ("tests/behaviour/test_exactness.py", "-k", "every_bit"),
    ),
    Mutation(
        "float32 is decoded in float64",
        (
            Edit(
                "intake_zcollection/schema/encoding.py",
                "decode_cf(typed_cf(variable), stored)",
                "decode_cf(variable.cf, stored)",
            ),
        ),
        ("tests/unit/test_encoding.py", "-k", "decoded_in_float32"),
    ),
)
