"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create them."""
    op.create_table(
        "causes",
        sa.Column("id", sa.String(length=32), nullable=False, comment="The same cause has the same id."),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="drift or data"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False, comment="JSON object."),
        sa.Column(
            "state",
            sa.String(length=16),
            nullable=False,
            comment="waiting, submitting, running, succeeded, failed, dropped",
        ),
        sa.Column("note", sa.Text(), nullable=False, comment="What it waits for, or why it ended so."),
        sa.Column(
            "arguments",
            sa.Text(),
            nullable=True,
            comment="The run's parameters as JSON, fixed when it is submitted.",
        ),
        sa.Column("run_id", sa.String(length=100), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_causes_service_state"), "causes", ["service", "state"])
    op.create_table(
        "dead_letters",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("path", sa.String(length=400), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("headers", sa.Text(), nullable=False, comment="JSON object."),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="Its first 64 KiB."),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_dead_letters_received_at"), "dead_letters", ["received_at"])
    op.create_table(
        "exports",
        sa.Column("uri", sa.String(length=400), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="predictions or labels"),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uri"),
    )
    op.create_table(
        "halves",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False, comment="request or response"),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column("version", sa.String(length=80), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="What the other half needs, as JSON."),
        sa.PrimaryKeyConstraint("event_id", "kind"),
        comment="Events whose other half has not come yet.",
    )
    op.create_index(op.f("ix_halves_received_at"), "halves", ["received_at"])
    op.create_table(
        "labels",
        sa.Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column("customer_id", sa.String(length=400), nullable=False),
        sa.Column(
            "outcome",
            sa.String(length=200),
            nullable=False,
            comment="A value of the contract's label column.",
        ),
        sa.Column("true_at", sa.BigInteger(), nullable=False, comment="When it became true."),
        sa.Column("known_at", sa.BigInteger(), nullable=False, comment="When it became known."),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint(
            "service",
            "customer_id",
            "outcome",
            "true_at",
            "known_at",
            name=op.f("uq_labels_service_customer_id_outcome_true_at_known_at"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_labels_service_known_at"), "labels", ["service", "known_at"])
    op.create_table(
        "losses",
        sa.Column("event_id", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False, comment="The half that did come."),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column("version", sa.String(length=80), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
        comment="Events whose other half was given up.",
    )
    op.create_index(op.f("ix_losses_time"), "losses", ["time"])
    op.create_table(
        "predictions",
        sa.Column(
            "seq", _SEQUENCE, autoincrement=True, nullable=False, comment="Order of arrival; never reused."
        ),
        sa.Column(
            "event_id",
            sa.String(length=200),
            nullable=False,
            comment="The CloudEvent's id, alike in request and response.",
        ),
        sa.Column("row", sa.Integer(), nullable=False, comment="Row within the request, from 0."),
        sa.Column("service", sa.String(length=80), nullable=False, comment="InferenceService."),
        sa.Column(
            "version",
            sa.String(length=80),
            nullable=False,
            comment="Bundle version (12 digits) that answered.",
        ),
        sa.Column("customer_id", sa.String(length=400), nullable=True),
        sa.Column("time", sa.BigInteger(), nullable=False, comment="When the request came."),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False, comment="When the row was written."),
        sa.Column(
            "features", sa.Text(), nullable=False, comment="JSON object: feature -> value, null for missing."
        ),
        sa.Column("score", sa.Float(precision=53), nullable=False, comment="P(churn)."),
        sa.Column("churn", sa.Boolean(), nullable=False, comment="Whether the score reached the threshold."),
        sa.Column(
            "latency_ms",
            sa.Float(precision=53),
            nullable=True,
            comment="From request event to response event.",
        ),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("event_id", "row", name=op.f("uq_predictions_event_id_row")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_predictions_service_customer_id_time"), "predictions", ["service", "customer_id", "time"]
    )
    op.create_index(op.f("ix_predictions_service_time"), "predictions", ["service", "time"])
    op.create_index(op.f("ix_predictions_service_version_seq"), "predictions", ["service", "version", "seq"])
    op.create_table(
        "transitions",
        sa.Column(
            "id",
            sa.String(length=64),
            nullable=False,
            comment="SHA-256 of its content: the same twice is one row.",
        ),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column(
            "shares", sa.Text(), nullable=False, comment="JSON object: version -> percent, from then on."
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False, comment="JSON object."),
        sa.Column("recorded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_transitions_service_at"), "transitions", ["service", "at"])
    op.create_table(
        "verdicts",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("service", sa.String(length=80), nullable=False),
        sa.Column(
            "version",
            sa.String(length=80),
            nullable=False,
            comment="The champion whose reference was compared with.",
        ),
        sa.Column("family", sa.String(length=16), nullable=False, comment="inputs or outcomes"),
        sa.Column(
            "number",
            sa.Integer(),
            nullable=False,
            comment="Window of this family since that champion serves, from 1.",
        ),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False, comment="tenure.drift.Verdict as JSON."),
        sa.Column("report_uri", sa.Text(), nullable=True, comment="The MLflow run with the report."),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint(
            "service", "version", "family", "number", name=op.f("uq_verdicts_service_version_family_number")
        ),
        sqlite_autoincrement=True,
    )
