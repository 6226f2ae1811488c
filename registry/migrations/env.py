"""What Alembic runs: configures a migration on the connection, or the dialect, that ``upgrade`` was given."""

from alembic import context

from registry.sql.tables import metadata

attributes = context.config.attributes

if context.is_offline_mode():
    context.configure(dialect_name=attributes["dialect"], literal_binds=True, transactional_ddl=True)
else:
    # Alembic takes SQLite's DDL for non-transactional by default; with an explicit BEGIN it is not.
    context.configure(connection=attributes["connection"], target_metadata=metadata, transactional_ddl=True)

with context.begin_transaction():
    context.run_migrations()
