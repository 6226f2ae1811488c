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
        "the marker is put right before it is known whether the registry may be written",
        (
            Edit(
                "intake_zcollection/writing/write.py",
                "ensure_marker(handle)  # not before: who may not write the registry changes nothing in the storage",
                "",
            ),
            Edit(
                "intake_zcollection/writing/write.py",
                "    first, results, losses = plan.head",
                "    ensure_marker(handle)\n    first, results, losses = plan.head",
            ),
        ),
        ("tests/behaviour/test_reading_only.py", "-k", "role"),
    ),
    Mutation(
        "a begin that gave way is said to have been aborted before it is tried again",
        (
            Edit(
                "registry/transaction.py",
                "@retried  # and not what is around it: who asks whether it was recorded leaves a row if it was not",
                "",
            ),
            Edit(
                "registry/transaction.py",
                "    def __enter__(self) -> Self:",
                "    @retried\n    def __enter__(self) -> Self:",
            ),
        ),
        ("tests/registry/test_postgres.py", "-k", "begin"),
    ),
    Mutation(
        "data that is missing is called corrupt without being asked for",
        (
            Edit(
                "intake_zcollection/reading/lazy.py",
                "        with self.listing.asked_again():",
                "        if self.listing:",
            ),
        ),
        ("tests/behaviour/test_dropping.py", "-k", "lazily"),
    ),
    Mutation(
        "an entry of which a cut left some rows finds all of them",
        (
            Edit(
                "registry/sql/entries.py",
                "else_=last) - first",
                "else_=entry.c.row_stop) - first",
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "scan and sqlite and rows"),
    ),
    Mutation(
        "an update of what an index is computed from leaves its entries",
        (
            Edit(
                "registry/changes/indexes.py",
                "return bool(now.layers[slot.layer_id] & index.inputs.keys())",
                "return False",
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "scan and sqlite-update"),
    ),
    Mutation(
        "what an index knows of whole partitions is kept for what a write left of them",
        (
            Edit(
                "registry/changes/indexes.py",
                'if index.per == "partition":',
                'if index.per == "none":',
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "scan and sqlite-upsert"),
    ),
    Mutation(
        "a partition that a view reads as it was is looked up as it is",
        (
            Edit(
                "intake_zcollection/reading/finding.py",
                "    if not behind:\n",
                "    if behind is not None:\n",
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "view and sqlite"),
    ),
    Mutation(
        "rows by their places are counted in parts, where they are looked up too",
        (
            Edit(
                "intake_zcollection/reading/crop.py",
                "before = table.rows_before(number)",
                "before = 0",
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "places and sqlite"),
    ),
    Mutation(
        "where bounds cut a part of which some rows are wanted, these are counted from its beginning",
        (
            Edit(
                "intake_zcollection/reading/crop.py",
                "inside.append((first + start, first + max(start, stop), *_bounds(rows)))",
                "inside.append((start, max(start, stop), *_bounds(rows)))",
            ),
        ),
        ("tests/behaviour/test_rows.py", "-k", "bounds and sqlite"),
    ),
    Mutation(
        "rows that were found at a newer version are loaded from an older one",
        (
            Edit(
                "intake_zcollection/operations/load.py",
                "(first, last), keys = sorted((found.version, selected.version)), selected.rows.keys",
                "(first, last), keys = (found.version, selected.version), selected.rows.keys",
            ),
        ),
        ("tests/behaviour/test_rows.py", "-k", "other_ones and sqlite"),
    ),
    Mutation(
        "the version of the base at which a partition is read does not matter to rows that were found in a view",
        (
            Edit(
                "intake_zcollection/reading/selection.py",
                "{key: over.behind.get(columns_of(key), over.base_version) for key in self.rows.keys}",
                "dict.fromkeys(self.rows.keys, over.base_version)",
            ),
        ),
        ("tests/behaviour/test_rows.py", "-k", "view and sqlite"),
    ),
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
                "intake_zcollection/merging/runs.py",
                'merged = np.argsort(np.concatenate([*old_times, times[start:stop]]), kind="stable")',
                "merged = np.arange(sum(map(len, old_times)) + stop - start)",
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
                'np.lexsort((-fragments["layer"], -fragments["written"], self._parts_of_fragments))',
                'np.lexsort((-fragments["layer"], self._parts_of_fragments))',
            ),
        ),
        ("tests/behaviour/test_updating.py", "-k", "layers"),
    ),
    Mutation(
        "the values of a dropped variable come back with its name",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "_mapped(versions, variable.was_there) & (layers <= 0)",
                "(layers <= 0)",
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
    Mutation(
        "rows that come close the layers of the parts beside them",
        (
            Edit(
                "registry/changes/updates.py",
                "(slot in written or slot in covered)]",
                "any(slot.key == each.key for each in written)]",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "a_correction_stays"),
    ),
    Mutation(
        "a part is cut into others that another writer put there meanwhile",
        (
            Edit(
                "registry/changes/requirements.py",
                "return _in_slots([slot for slot in found if (slot.key, slot.axis_min) not in known])",
                "return _in_slots(found[:0])",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "one_stretch"),
    ),
    Mutation(
        "what is kept of a part that is cut counts as new",
        (
            Edit(
                "registry/sql/moving.py",
                '"begin_version": _NOW,\n        "start"',
                '"begin_version": _NOW,\n        "written_version": _NOW,\n        "start"',
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "newer_of_two_layers"),
    ),
    Mutation(
        "the values of a rewritten partition count as new",
        (
            Edit(
                "intake_zcollection/operations/rewrite.py",
                "existing=origin, written_version=written)",
                "existing=origin)",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "rewriting_makes"),
    ),
    Mutation(
        "what was planned before a variable came is read as if it had it",
        (
            Edit(
                "registry/changes/updates.py",
                "schema_version = now.version if fragment.schema_version is None else fragment.schema_version",
                "schema_version = now.version",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "adds_meanwhile"),
    ),
    Mutation(
        "the tokens of an axis do not tell the rows of a group apart",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "digest.update(np.stack([starts, self.piece_sizes]).tobytes())",
                "digest.update(self.piece_sizes.tobytes())",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "tokens"),
    ),
    Mutation(
        "the tokens of a table do not tell the rows of a part apart",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "hashlib.sha256(np.ascontiguousarray(self.parts).tobytes())",
                "hashlib.sha256()",
            ),
        ),
        ("tests/behaviour/test_parts.py", "-k", "tokens"),
    ),
    Mutation(
        "the partition of key 0 takes the immutable variables with it",
        (Edit("registry/sql/moving.py", "here.append(table.c.layer_id != IMMUTABLE_LAYER)", "pass"),),
        ("tests/behaviour/test_parts.py", "-k", "key_0"),
    ),
    Mutation(
        "whole parts between two inserted rows are written again",
        (
            Edit(
                "intake_zcollection/merging/runs.py",
                "divides |= (after < before) & (part < len(bounds.rows)) & (bounds.highs[inside] < before)",
                "divides |= inside < 0",
            ),
        ),
        ("tests/unit/test_runs.py", "-k", "only_if_it_is_little"),
    ),
    Mutation(
        "rows of one dataset that a later one replaces stay",
        (
            Edit(
                "intake_zcollection/merging/runs.py",
                "alive[number] &= strategy.survives(times, inserted[other])",
                "alive[number] &= True",
            ),
        ),
        ("tests/unit/test_merging.py", "-k", "after_the_other"),
    ),
    Mutation(
        "an update does not depend on the other columns of an index",
        (
            Edit(
                "intake_zcollection/writing/updating.py",
                "            *_inputs_of_indexes(head, schema, written),\n",
                "",
            ),
        ),
        ("tests/behaviour/test_indexes.py", "-k", "updated_at_once and sqlite"),
    ),
    Mutation(
        "rows of who did not know of an index are not recorded as unindexed",
        (Edit("registry/changes/updates.py", "    written |= unindexed(now, update, written)\n", ""),),
        ("tests/behaviour/test_indexes.py", "-k", "did_not_know and sqlite"),
    ),
    Mutation(
        "SQLite is not told which conditions few rows meet",
        (Edit("registry/sql/lookup.py", 'return f"likelihood({', 'return f"coalesce({'),),
        ("tests/registry/test_hot_queries.py", "-k", "entries_are"),
    ),
    Mutation(
        "the groups that a write has committed go to vacuum with those that it wrote in vain",
        (
            Edit(
                "registry/transaction.py",
                '"of_uid": uid} for uid in staged if uid not in begun]',
                '"of_uid": uid} for uid in staged]',
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "only_the_partitions and sqlite"),
    ),
    Mutation(
        "those who have not lost pass by the queue",
        (
            Edit(
                "intake_zcollection/writing/write.py",
                "plan = _in_turn(partial(ask, None), partial(handle.registry.queue, handle.record))",
                "plan = ask(None)",
            ),
        ),
        ("tests/behaviour/test_queue.py", "-k", "long_update and sqlite"),
    ),
    Mutation(
        "who was overtaken plans again on the head that it knows",
        (
            Edit(
                "intake_zcollection/writing/write.py",
                "def ask(again: Again | None) -> Plan | None:\n        head = handle.select(selection)",
                "def ask(again, head=handle.select(selection)):",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and between"),
    ),
    Mutation(
        "what was not in conflict is forgotten when the rest is planned again",
        (
            Edit(
                "intake_zcollection/writing/write.py",
                "return new if again.keys is None else plan.joined(new, again.keys)",
                "return new",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "many and months"),
    ),
    Mutation(
        "a queued merge forgets how far the parts reach that it cuts",
        (
            Edit(
                "intake_zcollection/writing/existing.py",
                "for low, high in (*(run.axis_range for run in plan.runs), *reach))",
                "for low, high in (run.axis_range for run in plan.runs))",
            ),
        ),
        ("tests/behaviour/test_queue.py", "-k", "waits_in_the_end and sqlite and holes"),
    ),
    Mutation(
        "fragments that others replaced count as read",
        (
            Edit(
                "registry/changes/requirements.py",
                "return _in_slots([*_replaced(now, slots), *_new_layers(now, slots, variables)])",
                "return _in_slots([*_new_layers(now, slots, variables)])",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and update"),
    ),
    Mutation(
        "layers that came over what was read are not noticed",
        (
            Edit(
                "registry/changes/requirements.py",
                "return _in_slots([*_replaced(now, slots), *_new_layers(now, slots, variables)])",
                "return _in_slots([*_replaced(now, slots)])",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and fill"),
    ),
    Mutation(
        "a partition that comes between neighbours is not noticed",
        (
            Edit(
                "registry/changes/requirements.py",
                "there = read_keys_between(now.connection, now.id, ranges)",
                "there = read_keys_between(now.connection, now.id, ranges[:0])",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and neighbour"),
    ),
    Mutation(
        "values are written for variables that are gone",
        (Edit("registry/changes/requirements.py", "return requirement.conflict(now.schema)", "return None"),),
        ("tests/behaviour/test_conflicts.py", "-k", "gone"),
    ),
    Mutation(
        "two writers may add variables at once",
        (
            Edit(
                "registry/changes/requirements.py",
                'return Conflict("changed its variables") if taken or now.schema.next_id != next_id else None',
                "return None",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "brings or (both and add)"),
    ),
    Mutation(
        "a source may come twice if two bring it at once",
        (Edit("registry/changes/requirements.py", "return _of_sources(now, known)", "return None"),),
        ("tests/behaviour/test_conflicts.py", "-k", "source"),
    ),
    Mutation(
        "an insert does not depend on the immutable variables that it compared with",
        (
            Edit(
                "intake_zcollection/operations/insert.py",
                "requirements.append(immutable_need(head.snapshot))",
                "pass",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "immutable"),
    ),
    Mutation(
        "an update does not notice rows that came to its partitions",
        (
            Edit(
                "intake_zcollection/writing/updating.py",
                "needs[partition.key] = (Unchanged(slots, variables), alone)",
                "needs[partition.key] = (Unchanged(slots, variables),)",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and update and append"),
    ),
    Mutation(
        "rows that were left out need not be there any more",
        (
            Edit(
                "intake_zcollection/writing/existing.py",
                "parts = sorted({*plan.kept} | {*plan.left_out})",
                "parts = sorted(plan.kept)",
            ),
        ),
        ("tests/behaviour/test_conflicts.py", "-k", "one_after_the_other and keep"),
    ),
    Mutation(
        "what a commit writes is waited for, each statement by itself",
        (
            Edit(
                "registry/sql/writes.py",
                "if not psycopg.Pipeline.is_supported():  # by",
                "if True:  # by",
            ),
        ),
        ("tests/registry/test_round_trips.py", "-k", "eight_times and postgres"),
    ),
    Mutation(
        "Postgres joins the keys that are asked for as it likes",
        (Edit("registry/sql/lookup.py", ' OFFSET 0"', '"'),),
        ("tests/registry/test_postgres_plans.py", "-k", "guessing and 500"),
    ),
    Mutation(
        "what changed is told of variables that nobody sees any more",
        (
            Edit(
                "registry/sql/differences.py",
                "id_: ids & alive for id_, ids in read_layers(",
                "id_: ids for id_, ids in read_layers(",
            ),
        ),
        ("tests/behaviour/test_changes.py", "-k", "a_variable_that_is_gone and sqlite"),
    ),
    Mutation(
        "the hunks of a commit are taken in the order in which they come",
        (
            Edit(
                "registry/difference.py",
                "key=lambda each: (-each.layer_id, each.row_start)",
                "key=lambda each: each.layer_id",
            ),
        ),
        ("tests/unit/test_difference.py", "-k", "counted_in"),
    ),
    Mutation(
        "what changed is loaded with the rows beside it",
        (
            Edit(
                "intake_zcollection/reading/table.py",
                "self.take(numbers[some], (begin - before)[some], (end - before)[some])",
                "self.take(numbers[some])",
            ),
        ),
        ("tests/behaviour/test_changes.py", "-k", "joined and sqlite"),
    ),
    Mutation(
        "a partition is as old as its first value",
        (Edit("registry/changes/updates.py", "each.bounds[1] < limit", "each.bounds[0] < limit"),),
        ("tests/behaviour/test_changes.py", "-k", "the_last_value_decides and sqlite"),
    ),
    Mutation(
        "the author of the environment goes before the one that is given",
        (
            Edit(
                "registry/transaction.py",
                "signature.author or _author_of_environment() or login",
                "_author_of_environment() or signature.author or login",
            ),
        ),
        ("tests/behaviour/test_authors.py", "-k", "environment_says and sqlite"),
    ),
    Mutation(
        "own values are placed one row too late",
        (
            Edit(
                "registry/overlay.py",
                "yield (low, high), after + low - each.origin, each.variables",
                "yield (low, high), after + low - each.origin + 1, each.variables",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "stay_beside"),
    ),
    Mutation(
        "own values stay where their inputs were written over",
        (
            Edit(
                "registry/overlay.py",
                "if changed & inputs:",
                "if False:",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "stay_beside"),
    ),
    Mutation(
        "rows that went count as replaced for what is computed row by row",
        (
            Edit(
                "registry/overlay.py",
                "return came or not by.rowwise",
                "return True",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "whether_what_was_used"),
    ),
    Mutation(
        "rows that came between those that were used count as replacing them",
        (
            Edit(
                "registry/overlay.py",
                "if max(change.before[0], fragment.at[0]) >= min(change.before[1], fragment.at[1]):",
                "if change.before[0] >= fragment.at[1] or change.before[1] <= fragment.at[0]:",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "whether_what_was_used"),
    ),
    Mutation(
        "of two own values of a row, the older one is seen",
        (
            Edit(
                "registry/overlay.py",
                "key=lambda each: (-each.written_version, -each.layer_id)",
                "key=lambda each: (each.written_version, -each.layer_id)",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "written_later"),
    ),
    Mutation(
        "own values are stale by what they were computed from",
        (
            Edit(
                "registry/overlay.py",
                "        if version <= self.base_version:\n            return False\n",
                "",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "nothing_to_a_value"),
    ),
    Mutation(
        "another code version makes nothing stale",
        (
            Edit(
                "registry/overlay.py",
                "if variable in definitions and not computed.by.does_as(definitions[variable]):",
                "if variable not in definitions and definitions:",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "another_code_version"),
    ),
    Mutation(
        "immutable variables make nothing stale",
        (
            Edit(
                "registry/overlay.py",
                "return computed.base_version < self.version and bool(self.ids & computed.by.uses)",
                "return False",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "immutable_variables"),
    ),
    Mutation(
        "rows without an own value are stale where they were when it was computed",
        (
            Edit(
                "registry/overlay.py",
                "missing = without(everything, [each.at for each in placed if variable in layers[each.layer_id]])",
                "missing = without(everything, [each.at for each in mine])",
            ),
        ),
        ("tests/unit/test_overlay.py", "-k", "row_by_row"),
    ),
    Mutation(
        "what neighbours do makes nothing stale",
        (
            Edit(
                "registry/sql/views.py",
                "if own.computed[each].by.depth and self",
                "if not own.computed[each].by.depth and self",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "since_another_is_gone and sqlite"),
    ),
    Mutation(
        "who was a neighbour long ago is taken for one",
        (
            Edit(
                "registry/sql/views.py",
                "changed = (key for key, hunks in self._done.items() if hunks[-1][0] > version)",
                "changed = self._done",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "since_another_is_gone and sqlite"),
    ),
    Mutation(
        "who is a neighbour is asked by the filters of now alone",
        (
            Edit(
                "registry/sql/views.py",
                "return bool(near & otherwise) or any(",
                "return any(",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "takes_other_partitions and sqlite"),
    ),
    Mutation(
        "neighbours are known by the view's own filters alone, whatever the view below takes",
        (
            Edit(
                "registry/sql/bases.py",
                "taken_at(connection, state.base, state.base_version, state.chosen(Selection())).predicate",
                "state.chosen(Selection()).predicate",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "takes_no_more and sqlite"),
    ),
    Mutation(
        "own values lie in what the view below takes no more",
        (
            Edit(
                "registry/sql/views.py",
                "taken = taken_at(connection, state.base, state.base_version, selection)",
                "taken = selection",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "takes_no_more and sqlite"),
    ),
    Mutation(
        "an older own value stays under a newer one of fewer variables",
        (
            Edit(
                "intake_zcollection/writing/own.py",
                "over = [(rows, layer) for rows, layer in layers if layer & variables]",
                "over = [(rows, layer) for rows, layer in layers if variables <= layer]",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "not_seen_again and sqlite"),
    ),
    Mutation(
        "own values that are not written anew are lost",
        (
            Edit(
                "intake_zcollection/writing/own.py",
                "return PutOwn(keys, (*written, *stay), bounds)",
                "return PutOwn(keys, tuple(written), bounds)",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "not_seen_again and sqlite"),
    ),
    Mutation(
        "a partition is seen as it was wherever something is stale",
        (
            Edit(
                "registry/sql/views.py",
                "if stale and own.used_were_replaced(used):",
                "if stale:",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "rows_that_came_are_seen and sqlite"),
    ),
    Mutation(
        "a partition is seen as it is, whatever its own values were computed from",
        (
            Edit(
                "registry/sql/views.py",
                "if stale and own.used_were_replaced(used):",
                "if stale and not own.used_were_replaced(used):",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "seen_as_it_was and sqlite"),
    ),
    Mutation(
        "a sync row by row computes whole partitions",
        (
            Edit(
                "intake_zcollection/operations/sync.py",
                "if stale and definition.rowwise:",
                "if not stale and definition.rowwise:",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "with_the_rows_that_came and sqlite"),
    ),
    Mutation(
        "who computes the same own values is not noticed",
        (
            Edit(
                "registry/changes/requirements.py",
                'return Conflict("computed the same partitions") if changed else None',
                "return None",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "meanwhile_is_noticed and sqlite"),
    ),
    Mutation(
        "a pinned view follows its base",
        (
            Edit(
                "registry/sql/bases.py",
                "    if row.pinned_version is not None:\n        number = row.pinned_version\n    elif head:",
                "    if head:",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "pinned and sqlite"),
    ),
    Mutation(
        "what views show is dropped unasked",
        (
            Edit(
                "registry/changes/views.py",
                "    if not break_views:\n        names",
                "    if break_views:\n        names",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "dropped_unasked and sqlite"),
    ),
    Mutation(
        "a view takes all partitions, whatever its filter",
        (
            Edit(
                "registry/sql/bases.py",
                "        if self.filters is None:\n            return selection",
                "        if self.filters is not None or self.filters is None:\n            return selection",
            ),
        ),
        ("tests/stateful/test_view_examples.py", "-k", "what_its_filter_says and sqlite"),
    ),
    Mutation(
        "a view below others is read as it is, where the rows are read as they were",
        (
            Edit(
                "registry/overlay.py",
                "below = self.below and older.below and self.below.with_older(older.below, keys)",
                "below = self.below",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "is_seen_where and sqlite"),
    ),
    Mutation(
        "what inputs were computed from makes nothing stale",
        (
            Edit(
                "registry/overlay.py",
                "return frozenset((*self.inputs, *self.through))",
                "return frozenset(self.inputs)",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "counts_too and sqlite"),
    ),
    Mutation(
        "a sync of which nothing comes leaves views over it behind",
        (
            Edit(
                "intake_zcollection/operations/sync.py",
                "(not plans and _is_awaited(handle, head))",
                "False",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "leave_all_views and sqlite"),
    ),
    Mutation(
        "what a view wrote is taken to count the rows of the newest base",
        (
            Edit(
                "registry/sql/bases.py",
                "hunks_after(some, script)",
                "some",
            ),
        ),
        ("tests/behaviour/test_views_of_views.py", "-k", "late_writer and sqlite"),
    ),
    Mutation(
        "own values stay beside other immutables than they were computed from",
        (
            Edit(
                "registry/overlay.py",
                "if not stored.since(self.computed[each]))",
                "if True)",
            ),
        ),
        ("tests/behaviour/test_view_syncing.py", "-k", "immutable and sqlite"),
    ),
    Mutation(
        "a view does not look whether what it is to show is there still",
        (
            Edit(
                "registry/creation.py",
                "            check_shown(connection, base, heads[base.collection.id])\n",
                "",
            ),
        ),
        ("tests/behaviour/test_views.py", "-k", "is_being_created and sqlite"),
    ),
    Mutation(
        "the base of a view is never a view",
        (Edit("intake_zcollection/view.py", "        return shown(handle)", "        return Collection(handle)"),),
        ("tests/behaviour/test_views_of_views.py", "-k", "of_its_own and sqlite"),
    ),
    Mutation(
        "groups are given up where a row of theirs is gone, whatever others they have",
        (
            Edit(
                "registry/sql/retention.py",
                "found.c.gone == rows.scalar_subquery(), ~alive.exists()",
                "~alive.exists()",
            ),
        ),
        ("tests/registry/test_retention.py", "-k", "stays_is_kept and sqlite"),
    ),
    Mutation(
        "groups with live rows are given up",
        (
            Edit(
                "registry/sql/retention.py",
                "found.c.gone == rows.scalar_subquery(), ~alive.exists()",
                "found.c.gone == rows.scalar_subquery()",
            ),
        ),
        ("tests/registry/test_retention.py", "-k", "stays_is_kept and sqlite"),
    ),
    Mutation(
        "pins hold nothing",
        (
            Edit(
                "registry/sql/retention.py",
                "held = {row.version for row in found if row.lease_until > now}",
                "held = set[int]()",
            ),
        ),
        ("tests/registry/test_retention.py", "-k", "pin and sqlite"),
    ),
    Mutation(
        "what a version may have expired since is pinned",
        (Edit("registry/retention.py", "        queries.check_kept(connection, found, version)\n", ""),),
        ("tests/registry/test_retention.py", "-k", "pin and sqlite"),
    ),
    Mutation(
        "a view over a pinned view holds nothing of what that is over",
        (
            Edit(
                "registry/sql/retention.py",
                "            held.add(queries.read_base_version(connection, view_id, version))",
                "            assert version >= 0",
            ),
        ),
        ("tests/behaviour/test_retention.py", "-k", "through_views and sqlite"),
    ),
    Mutation(
        "the last hunks of partitions are deleted too",
        (
            Edit(
                "registry/sql/retention.py",
                "sa.delete(change).where(*mine, sa.select(later.c.version).where(*same).exists())",
                "sa.delete(change).where(*mine, sa.or_(sa.true(), sa.select(later.c.version).where(*same).exists()))",
            ),
        ),
        ("tests/registry/test_retention.py", "-k", "hunks and sqlite"),
    ),
    Mutation(
        "hunks go with the versions, though views lie over older ones",
        (
            Edit(
                "registry/retention.py", "        floor = read_view_floor(connection, id_)\n", "        floor = None\n"
            ),
        ),
        ("tests/behaviour/test_retention.py", "-k", "placed_over and sqlite"),
    ),
    Mutation(
        "nobody is fenced before what they wrote is deleted",
        (Edit("registry/sql/leftovers.py", 'values(state="expired")', "values(state=row.state)"),),
        ("tests/behaviour/test_retention.py", "-k", "dead_writer and sqlite"),
    ),
    Mutation(
        "what an intent names is deleted once",
        (Edit("registry/sql/leftovers.py", "values(again_at=again_at)", "values(again_at=again_at - 3 * grace)"),),
        ("tests/behaviour/test_retention.py", "-k", "dead_writer and sqlite"),
    ),
    Mutation(
        "rows are forgotten before their objects are deleted",
        (
            Edit(
                "intake_zcollection/operations/vacuum.py",
                "            deleted = [each for place",
                "            self.registry.forget_leftovers(some, self.grace)\n            deleted = [each for place",
            ),
        ),
        ("tests/behaviour/test_retention.py", "-k", "cannot_be_reached and sqlite"),
    ),
    Mutation(
        "garbage is deleted before it is due",
        (Edit("registry/sql/leftovers.py", "where(row.not_before <= now, row.id > after)", "where(row.id > after)"),),
        ("tests/behaviour/test_retention.py", "-k", "after_the_grace and local and sqlite"),
    ),
    Mutation(
        "intents of a cluster's jobs end with their commit",
        (Edit("registry/transaction.py", "        if self.is_tried_again:\n", "        if not self:\n"),),
        ("tests/behaviour/test_retention.py", "-k", "lost_attempts and sqlite"),
    ),
    Mutation(
        "the attempt that was committed is deleted with the lost ones",
        (Edit("intake_zcollection/operations/vacuum.py", "{each.keep for each in rows if each.keep}", "set[str]()"),),
        ("tests/behaviour/test_retention.py", "-k", "lost_attempts and sqlite"),
    ),
    Mutation(
        "what is no path of a group is deleted with all that is in it",
        (Edit("intake_zcollection/storage/write.py", "if not layout.is_group(path):", "if not path.strip('/.'):"),),
        ("tests/behaviour/test_retention.py", "-k", "nothing_is_deleted_but and sqlite"),
    ),
    Mutation(
        "partitions are read at versions of the base that have expired",
        (Edit("registry/sql/views.py", "    _check_behind(connection, view, state.base, behind)\n", ""),),
        ("tests/behaviour/test_retention.py", "-k", "stale_values and sqlite"),
    ),
    Mutation(
        "a partition is left out by what is known of half its rows",
        (Edit("registry/sql/statistics.py", "sa.and_(covers, sa.not_(meets))", "sa.not_(meets)"),),
        ("tests/registry/test_statistics.py", "-k", "rules_it_out and sqlite"),
    ),
    Mutation(
        "a later statistic of a group says nothing of its rows",
        (
            Edit(
                "registry/sql/statistics.py",
                "known.row_start <= fragment.c.start",
                "known.row_start == fragment.c.start",
            ),
        ),
        ("tests/registry/test_statistics.py", "-k", "what_was_whole and sqlite"),
    ),
    Mutation(
        "rows from before a variable are left out, whatever they read as",
        (Edit("registry/sql/statistics.py", "(is_rows, int(wanted.fill_meets))", "(is_rows, 0)"),),
        ("tests/registry/test_statistics.py", "-k", "fill_value and sqlite"),
    ),
    Mutation(
        "layers do not count where partitions are chosen by values",
        (Edit("registry/sql/statistics.py", "fragment.c.layer_id.in_(sorted(layers))", "sa.false()"),),
        ("tests/registry/test_statistics.py", "-k", "fill_value and sqlite"),
    ),
    Mutation(
        "values of a view are ruled out by its base",
        (Edit("registry/sql/bases.py", "if each.variable_id < OWN_IDS)", "if each)"),),
        ("tests/behaviour/test_statistics.py", "-k", "a_view_leaves_out and sqlite"),
    ),
    Mutation(
        "missing values lie inside of open bounds",
        (
            Edit(
                "intake_zcollection/reading/bounds.py",
                "np.zeros(values.shape, bool), ~is_missing(values)",
                "np.zeros(values.shape, bool), np.ones(values.shape, bool)",
            ),
        ),
        ("tests/unit/test_bounds.py", "-k", "nat_with_none"),
    ),
    Mutation(
        "bounds on integers are rounded outwards",
        (Edit("intake_zcollection/reading/bounds.py", "else math.ceil(low)", "else math.floor(low)"),),
        ("tests/unit/test_bounds.py", "-k", "integers_are_compared"),
    ),
    Mutation(
        "angles are compared as they are written",
        (
            Edit(
                "intake_zcollection/reading/bounds.py",
                "yield low + _TURN * turn, high + _TURN * turn",
                "yield low, high",
            ),
        ),
        ("tests/unit/test_bounds.py", "-k", "go_round"),
    ),
    Mutation(
        "angles of no convention are ruled out",
        (
            Edit(
                "intake_zcollection/reading/bounds.py",
                "            intervals += [(None, recorded(_ANGLES[0])), (recorded(_ANGLES[1]), None)]",
                "            pass",
            ),
        ),
        ("tests/unit/test_bounds.py", "-k", "go_round"),
    ),
    Mutation(
        "statistics are those of packed numbers",
        (Edit("intake_zcollection/writing/statistics.py", "decode(variable, stored[rows])", "stored[rows]"),),
        ("tests/behaviour/test_statistics.py", "-k", "numpy_finds and sqlite"),
    ),
    Mutation(
        "statistics of a cut part are computed again",
        (
            Edit(
                "intake_zcollection/operations/statistics.py",
                "rows[place - 1][0] == fragment.start or rows[place - 1][1] >= fragment.start + fragment.rows",
                "rows[place - 1][0] == fragment.start",
            ),
        ),
        ("tests/behaviour/test_statistics.py", "-k", "in_one_version and sqlite"),
    ),
)
