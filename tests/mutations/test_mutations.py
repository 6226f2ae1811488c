"""The list of mistakes does not rot: what they change is in the source, once."""

import pytest

from .__main__ import ROOT
from .mutations import MUTATIONS, Edit, Mutation


@pytest.mark.parametrize(
    "edit", [edit for mutation in MUTATIONS for edit in mutation.edits], ids=lambda edit: edit.file
)
def test_what_a_mutation_changes_occurs_exactly_once(edit: Edit) -> None:
    assert (ROOT / edit.file).read_text().count(edit.old) == 1


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_tests_of_a_mutation_are_there(mutation: Mutation) -> None:
    assert (ROOT / mutation.tests[0]).exists()
