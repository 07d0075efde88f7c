"""Airflow as the scheduler of connector_service: two DAGs for any number of databases.

Put this file into Airflow's dags folder, and a copy of it into its plugins folder: a triggerer imports from there what
it waits with, and does not look into dags. It is tested with Airflow 3.3 and apache-airflow-providers-postgres 7.1.
Make a connection of type Postgres for each database, for a role that is a member of connector_service_admin:

    CREATE ROLE airflow LOGIN PASSWORD '...' IN ROLE connector_service_admin;
    airflow connections add connector_service --conn-uri 'postgres://airflow:...@host:5432/database?sslmode=verify-full'

The extension's schema has to be in that role's search_path. Then hand connectors over, one by one or all:

    UPDATE connectors SET scheduler = 'external' WHERE ...;

From then on the database neither starts them when they are due nor tries them again when they failed: Airflow does.
Connectors with scheduler = 'database' are left to pg_cron or the worker; both schedulers may be on at once.

**connector_service_sync** looks for what is due, and makes one mapped task of each 50 connectors of a database, so that
10,000 connectors are 200 tasks (and 51,200 are the most, with Airflow's default of core.max_map_length). A task asks
for the syncs of its batch, and is then deferred: it takes no slot of a worker while the triggerer looks, by one query
each 10 seconds, whether any of its runs is still going. A run that is back in the queue because its vendor wants a
pause is still going. When all have ended, the task succeeds, or fails with what went wrong with which connector and
what to do about it: in its log, and as XCom "failed". When it is tried again (3 times, after 5 minutes each) it asks
only for the connectors that have not succeeded since the batch was made: one that fails costs its batch's others
nothing, and other batches do not notice. A database that cannot be reached is one task that fails, and is tried again.

Nothing runs twice: where a connector has a run that is queued or going, connector_service_sync() returns that one,
whoever asked for it.

**connector_service_backfill** reads days of the past again, by Airflow's own backfill. Its daily runs do nothing:

    airflow backfill create --dag-id connector_service_backfill --from-date 2026-01-01 --to-date 2026-01-31

Each day is a DAG run, and a run of kind backfill for each connector with scheduler = 'external', or for those that
are named: --dag-run-conf '{"connectors": ["00000000-0000-4000-8000-00000000000a"]}'.

What can be set for one DAG run (as params) has its default in the environment of Airflow, and so does the rest:

    CONNECTOR_SERVICE_CONNECTIONS   ids of Airflow connections, with commas between them    connector_service
    CONNECTOR_SERVICE_BATCH         connectors of one task                                  50
    CONNECTOR_SERVICE_SCHEDULE      when to look for what is due; empty: when triggered     */15 * * * *
    CONNECTOR_SERVICE_RETRIES       how often a task is tried again                         3
    CONNECTOR_SERVICE_RETRY_DELAY   seconds before that                                     300
    CONNECTOR_SERVICE_POLL          seconds before each look at the runs of a batch         10
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from airflow.sdk import BaseHook, BaseOperator, CronDataIntervalTimetable, Param, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

log = logging.getLogger(__name__)


def setting(name: str, default: str) -> str:
    return os.environ.get(f"CONNECTOR_SERVICE_{name}", default)


RETRIES = int(setting("RETRIES", "3"))
RETRY_DELAY = timedelta(seconds=float(setting("RETRY_DELAY", "300")))
POLL = float(setting("POLL", "10"))

# Longest wait of one try. Longer: a task whose run never ends is not noticed. Shorter: vendors may ask for pauses of
# hours. Nothing is lost by it: the next try is given the same runs.
LONGEST_WAIT = timedelta(hours=24)

# How often a connector is asked for whose row another transaction holds at that moment, a second apart.
BUSY_TRIES = 5

# What failed a short while ago is left to the DAG run that tries it again.
DUE = """
SELECT now()::text, connector_id::text FROM connectors c
WHERE scheduler = 'external' AND status IN ('active', 'error') AND next_sync_at <= now()
    AND (failures = 0 OR NOT EXISTS (
        SELECT FROM sync_runs r WHERE r.connector_id = c.connector_id AND r.state = 'failed' AND r.kind = 'sync'
            AND r.finished_at > now() - %(retrying)s::interval))
ORDER BY next_sync_at
"""

# Of a batch, what has not succeeded since it was made. NULL as the run: the connector's row is being changed.
ASK_SYNC = """
SELECT connector_id::text, connector_service_sync(connector_id)::text FROM connectors c
WHERE connector_id = ANY (%(connectors)s::uuid[]) AND scheduler = 'external' AND status <> 'paused'
    AND (SELECT r.state = 'succeeded' AND r.finished_at >= %(made)s::timestamptz FROM sync_runs r
         WHERE r.connector_id = c.connector_id AND r.kind = 'sync' ORDER BY r.requested_at DESC LIMIT 1) IS NOT TRUE
"""

PAST = """
SELECT now()::text, connector_id::text FROM connectors
WHERE status <> 'paused' AND type NOT IN ('csv', 'excel', 'webhook')
    AND CASE WHEN %(connectors)s::uuid[] = '{}' THEN scheduler = 'external'
        ELSE connector_id = ANY (%(connectors)s::uuid[]) END
ORDER BY connector_id
"""

# The same for a span of the past: the run that waits or goes already and has it, or a new one. The step is the span, in
# seconds because a day has not always 24 hours.
ASK_BACKFILL = """
SELECT c.connector_id::text, coalesce(before.active, (
    SELECT min(run::text) FROM connector_service_backfill(c.connector_id, %(from)s::timestamptz, %(to)s::timestamptz,
        make_interval(secs => extract(epoch FROM %(to)s::timestamptz - %(from)s::timestamptz))) AS run))
FROM connectors c LEFT JOIN LATERAL (
    SELECT CASE WHEN r.state IN ('queued', 'running') THEN r.run_id::text END AS active,
        r.state = 'succeeded' AND r.finished_at >= %(made)s::timestamptz AS done
    FROM sync_runs r WHERE r.connector_id = c.connector_id AND r.kind = 'backfill'
        AND r.window_from <= %(from)s::timestamptz AND r.window_to >= %(to)s::timestamptz
    ORDER BY r.requested_at DESC LIMIT 1) AS before ON true
WHERE c.connector_id = ANY (%(connectors)s::uuid[]) AND c.status <> 'paused' AND before.done IS NOT TRUE
"""

GOING = "SELECT count(*) FROM sync_runs WHERE run_id = ANY (%s::uuid[]) AND state IN ('queued', 'running')"

FAILED = """
SELECT r.connector_id::text, c.name, r.run_id::text, r.error_code, r.error_message, connector_service_hint(r.error_code)
FROM sync_runs r JOIN connectors c USING (connector_id)
WHERE r.run_id = ANY (%s::uuid[]) AND r.state <> 'succeeded' ORDER BY c.name, r.run_id
"""
FAILED_KEYS = ("connector_id", "name", "run_id", "error_code", "error_message", "hint")
REPORT = 'connector "{name}" ({connector_id}): {error_code}: {error_message}. {hint}'


class RunsEnd(BaseTrigger):
    """Fires when none of the runs is queued or going any more."""

    def __init__(self, database: str, runs: list[str], poll: float) -> None:
        super().__init__()
        self.database, self.runs, self.poll = database, runs, poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        # Not __name__: Airflow imports a file of DAGs under a name of its own.
        arguments = {"database": self.database, "runs": self.runs, "poll": self.poll}
        return "connector_service_dag.RunsEnd", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        connection = await BaseHook.aget_connection(self.database)
        ignored = PostgresHook.ignored_extra_options
        extra = {key: value for key, value in connection.extra_dejson.items() if key not in ignored}
        while True:
            # Before the first look, too. Airflow 3.3 takes a task for killed that goes on before the scheduler was told
            # that its process ended when it was deferred, which takes some seconds (its issues 71580 and 72716); that
            # would cost one of the tries, though nothing else.
            await asyncio.sleep(self.poll)
            try:
                # A connection for each look: hundreds of batches may wait, and would each hold one.
                async with await psycopg.AsyncConnection.connect(
                    host=connection.host, port=connection.port, user=connection.login, password=connection.password,
                    dbname=connection.schema, autocommit=True, **extra,
                ) as db:
                    going = await (await db.execute(GOING, [self.runs])).fetchone()
                if going == (0,):
                    yield TriggerEvent(None)
                    return
            except psycopg.OperationalError as error:
                # A server that is restarted goes on with its runs.
                self.log.warning("cannot look at the runs of %s, and try again: %s", self.database, error)


class RunBatch(BaseOperator):
    """Asks for the runs of a batch, waits for their end without a slot of a worker, and fails with what failed."""

    def __init__(self, *, batch: dict[str, Any], ask: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.batch, self.ask = batch, ask

    def execute(self, context: Any) -> None:
        database, asked = self.batch["database"], dict(self.batch)
        context["batch"] = self.batch["name"]
        runs: set[str] = set()
        for _ in range(BUSY_TRIES):
            # One statement for what is left of the batch; a run that is queued or going is returned, not doubled.
            found = PostgresHook(database).get_records(self.ask, asked)
            runs |= {run for (_, run) in found if run}
            asked["connectors"] = [connector for (connector, run) in found if not run]
            if not asked["connectors"]:
                break
            time.sleep(1)
        else:
            # The runs that are there go on, and the next try is given them.
            raise AirflowException(f"{database}: being changed by another transaction: {asked['connectors']}")
        self.log.info("%s: waiting for %s runs", self.batch["name"], len(runs))
        if runs:
            trigger = RunsEnd(database, sorted(runs), POLL)
            self.defer(trigger=trigger, method_name="report", kwargs={"runs": sorted(runs)}, timeout=LONGEST_WAIT)

    def report(self, context: Any, event: Any, runs: list[str]) -> None:
        context["batch"] = self.batch["name"]
        rows = PostgresHook(self.batch["database"]).get_records(FAILED, [runs])
        failed = [dict(zip(FAILED_KEYS, row)) for row in rows]
        self.log.info("%s: %s of %s runs succeeded", self.batch["name"], len(runs) - len(failed), len(runs))
        if failed:
            context["ti"].xcom_push("failed", failed)
            lines = [REPORT.format(**row) for row in failed]
            raise AirflowException("\n".join([f"{len(failed)} of {len(runs)} runs failed", *lines]))


def batches(query: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """What a query finds in each of the databases, as batches of one database each."""
    params = get_current_context()["params"]
    found = []
    for database in params["connections"]:
        try:
            rows = PostgresHook(database).get_records(query, arguments)
        except Exception:  # whatever it is, it is this database's own trouble
            log.exception("%s cannot be asked", database)
            # Nothing to ask for, but its task fails, and is tried again, for as long as this lasts.
            name = f"{database}, which did not answer"
            found.append({"name": name, "database": database, "made": None, "connectors": []})
            continue
        for start in range(0, len(rows), params["batch_size"]):
            part = rows[start : start + params["batch_size"]]
            connectors = [connector for (_, connector) in part]
            name = f"{database}, {start + 1} to {start + len(part)} of {len(rows)}"
            found.append({"name": name, "database": database, "made": part[0][0], "connectors": connectors})
    return found


PARAMS = {
    "connections": Param(
        [name.strip() for name in setting("CONNECTIONS", "connector_service").split(",")],
        type="array", items={"type": "string"}, description="ids of the Airflow connections to the databases",
    ),
    "batch_size": Param(int(setting("BATCH", "50")), type="integer", minimum=1, description="connectors of one task"),
}
RETRYING = {"retries": RETRIES, "retry_delay": RETRY_DELAY}


# Several DAG runs at once: one that tries a failed connector again must not hold up what is due meanwhile.
@dag(
    schedule=setting("SCHEDULE", "*/15 * * * *") or None, start_date=datetime(2000, 1, 1), catchup=False,
    max_active_runs=16, default_args=RETRYING, params=PARAMS, doc_md=__doc__, tags=["connector_service"],
)
def connector_service_sync() -> None:
    @task
    def due() -> list[dict[str, Any]]:
        return batches(DUE, {"retrying": RETRIES * RETRY_DELAY + RETRY_DELAY})

    RunBatch.partial(task_id="sync", ask=ASK_SYNC, map_index_template="{{ batch }}").expand(batch=due())


@dag(
    schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"), start_date=datetime(2000, 1, 1), catchup=False,
    default_args=RETRYING, doc_md=__doc__, tags=["connector_service"],
    params=PARAMS | {
        "connectors": Param(
            [], type="array", items={"type": "string"}, description="ids; none: all whose scheduler is external"
        ),
    },
)
def connector_service_backfill() -> None:
    @task
    def past() -> list[dict[str, Any]]:
        context = get_current_context()
        if context["dag_run"].run_type != "backfill":
            raise AirflowSkipException("this day was not asked for by airflow backfill create")
        span = {"from": context["data_interval_start"].isoformat(), "to": context["data_interval_end"].isoformat()}
        return [batch | span for batch in batches(PAST, {"connectors": context["params"]["connectors"]})]

    RunBatch.partial(task_id="backfill", ask=ASK_BACKFILL, map_index_template="{{ batch }}").expand(batch=past())


connector_service_sync()
connector_service_backfill()
