"""Whether an axis value is repeated in a partition, which readers need to know before they look for a label.

Revision 0003, after 0002. Of what was written before, nobody knows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("fragment", "past_fragment"):
        op.add_column(table, sa.Column("axis_unique", sa.Boolean(), nullable=True))
