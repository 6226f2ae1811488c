"""All that is said in SQL: tables, connections, statements, and what their rows become."""
