"""The ledger's tables. The detector alone writes them and migrates them; everybody else reads.

Times are microseconds since 1970 (UTC) as integers, which both databases compare exactly.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    }
)

# SQLite counts up only what is declared INTEGER.
_Sequence = BigInteger().with_variant(Integer, "sqlite")

predictions = Table(
    "predictions",
    metadata,
    Column("seq", _Sequence, primary_key=True, autoincrement=True, comment="Order of arrival; never reused."),
    Column(
        "event_id", String(200), nullable=False, comment="The CloudEvent's id, alike in request and response."
    ),
    Column("row", Integer, nullable=False, comment="Row within the request, from 0."),
    Column("service", String(80), nullable=False, comment="InferenceService."),
    Column("version", String(80), nullable=False, comment="Bundle version (12 digits) that answered."),
    Column("customer_id", String(400), nullable=True),
    Column("time", BigInteger, nullable=False, comment="When the request came."),
    Column("recorded_at", BigInteger, nullable=False, comment="When the row was written."),
    Column("features", Text, nullable=False, comment="JSON object: feature -> value, null for missing."),
    Column("score", Float(53), nullable=False, comment="P(churn)."),
    Column("churn", Boolean, nullable=False, comment="Whether the score reached the threshold."),
    Column("latency_ms", Float(53), nullable=True, comment="From request event to response event."),
    UniqueConstraint("event_id", "row"),
    Index(None, "service", "version", "seq"),
    Index(None, "service", "time"),
    Index(None, "service", "customer_id", "time"),
    sqlite_autoincrement=True,
)

halves = Table(
    "halves",
    metadata,
    Column("event_id", String(200), primary_key=True),
    Column("kind", String(8), primary_key=True, comment="request or response"),
    Column("service", String(80), nullable=False),
    Column("version", String(80), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False, index=True),
    Column("body", Text, nullable=False, comment="What the other half needs, as JSON."),
    comment="Events whose other half has not come yet.",
)

losses = Table(
    "losses",
    metadata,
    Column("event_id", String(200), primary_key=True),
    Column("kind", String(8), nullable=False, comment="The half that did come."),
    Column("service", String(80), nullable=False),
    Column("version", String(80), nullable=False),
    Column("time", BigInteger, nullable=False, index=True),
    comment="Events whose other half was given up.",
)

labels = Table(
    "labels",
    metadata,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("service", String(80), nullable=False),
    Column("customer_id", String(400), nullable=False),
    Column("outcome", String(200), nullable=False, comment="A value of the contract's label column."),
    Column("true_at", BigInteger, nullable=False, comment="When it became true."),
    Column("known_at", BigInteger, nullable=False, comment="When it became known."),
    Column("recorded_at", BigInteger, nullable=False),
    UniqueConstraint("service", "customer_id", "outcome", "true_at", "known_at"),
    Index(None, "service", "known_at"),
    sqlite_autoincrement=True,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("received_at", BigInteger, nullable=False, index=True),
    Column("path", String(400), nullable=False),
    Column("reason", Text, nullable=False),
    Column("headers", Text, nullable=False, comment="JSON object."),
    Column("body", LargeBinary, nullable=False, comment="Its first 64 KiB."),
    sqlite_autoincrement=True,
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _Sequence, primary_key=True, autoincrement=True),
    Column("service", String(80), nullable=False),
    Column("version", String(80), nullable=False, comment="The champion whose reference was compared with."),
    Column("family", String(16), nullable=False, comment="inputs or outcomes"),
    Column(
        "number", Integer, nullable=False, comment="Window of this family since that champion serves, from 1."
    ),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("alarm", Boolean, nullable=False),
    Column("verdict", Text, nullable=False, comment="tenure.drift.Verdict as JSON."),
    Column("report_uri", Text, nullable=True, comment="The MLflow run with the report."),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("service", "version", "family", "number"),
    sqlite_autoincrement=True,
)

causes = Table(
    "causes",
    metadata,
    Column("id", String(32), primary_key=True, comment="The same cause has the same id."),
    Column("service", String(80), nullable=False),
    Column("kind", String(16), nullable=False, comment="drift or data"),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False, comment="JSON object."),
    Column(
        "state",
        String(16),
        nullable=False,
        comment="waiting, submitting, running, succeeded, failed, dropped",
    ),
    Column("note", Text, nullable=False, default="", comment="What it waits for, or why it ended so."),
    Column(
        "arguments", Text, nullable=True, comment="The run's parameters as JSON, fixed when it is submitted."
    ),
    Column("run_id", String(100), nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Index(None, "service", "state"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("id", String(64), primary_key=True, comment="SHA-256 of its content: the same twice is one row."),
    Column("service", String(80), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("outcome", String(32), nullable=False),
    Column("shares", Text, nullable=False, comment="JSON object: version -> percent, from then on."),
    Column("reason", Text, nullable=False),
    Column("evidence", Text, nullable=False, comment="JSON object."),
    Column("recorded_at", BigInteger, nullable=False),
    Index(None, "service", "at"),
)

exports = Table(
    "exports",
    metadata,
    Column("uri", String(400), primary_key=True),
    Column("kind", String(16), nullable=False, comment="predictions or labels"),
    Column("last_seq", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
