//! `sync_requests`: the last requests of a run.

use connector_service_core::fetch::{Asked, MOST_REQUESTS};

use super::run::Claimed;
use super::storable::storable;
use super::{Db, uuid};
use crate::error::Result;

/// Writes the requests of a run at its end. A run that waits and goes on writes them each time, and the last ones stay.
pub fn write(db: &mut Db, claimed: &Claimed, requests: &[Asked]) -> Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let text = |text: &str| storable(text).into_owned();
    let streams: Vec<Option<String>> = requests
        .iter()
        .map(|asked| asked.stream.as_deref().map(text))
        .collect();
    let addresses: Vec<String> = requests.iter().map(|asked| text(&asked.address)).collect();
    let micros: Vec<i64> = requests
        .iter()
        .map(|asked| asked.at.timestamp_micros())
        .collect();
    let methods: Vec<&str> = requests.iter().map(|asked| asked.method).collect();
    let statuses: Vec<Option<i32>> = requests
        .iter()
        .map(|asked| asked.status.map(i32::from))
        .collect();
    let codes: Vec<Option<&str>> = requests
        .iter()
        .map(|asked| asked.code.map(|code| code.word()))
        .collect();
    let seconds: Vec<f64> = requests
        .iter()
        .map(|asked| asked.duration.as_secs_f64())
        .collect();
    let pauses: Vec<f64> = requests
        .iter()
        .map(|asked| asked.pause.as_secs_f64())
        .collect();
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let bytes: Vec<i64> = requests.iter().map(|asked| n(asked.bytes)).collect();
    let records: Vec<Option<i64>> = requests.iter().map(|asked| asked.records.map(n)).collect();
    let tries: Vec<i32> = requests
        .iter()
        .map(|asked| i32::try_from(asked.tries).unwrap_or(i32::MAX))
        .collect();
    db.run(
        "WITH before AS (SELECT coalesce(max(r.request), 0) AS count FROM @extschema@.sync_requests r WHERE r.run_id = $1)
         INSERT INTO @extschema@.sync_requests (run_id, request, connector_id, tenant_id, requested_at, stream, method, address, status, error_code,
            duration, bytes, records, tries, pause)
         SELECT $1, before.count + a.place, $2, $3, 'epoch'::timestamptz + a.at * interval '1 microsecond', a.stream, a.method, a.address, a.status, a.code,
            make_interval(secs => a.seconds), a.bytes, a.records, a.tries, make_interval(secs => a.pause)
         FROM before, unnest($4::bigint[], $5::text[], $6::text[], $7::text[], $8::integer[], $9::text[], $10::float8[], $11::bigint[], $12::bigint[], $13::integer[], $14::float8[])
            WITH ORDINALITY AS a(at, stream, method, address, status, code, seconds, bytes, records, tries, pause, place)",
        &[
            uuid(claimed.run).into(),
            uuid(claimed.connector).into(),
            uuid(claimed.tenant).into(),
            micros.into(),
            streams.into(),
            methods.into(),
            addresses.into(),
            statuses.into(),
            codes.into(),
            seconds.into(),
            bytes.into(),
            records.into(),
            tries.into(),
            pauses.into(),
        ],
    )?;
    db.run(
        "DELETE FROM @extschema@.sync_requests WHERE run_id = $1
            AND request <= (SELECT max(r.request) FROM @extschema@.sync_requests r WHERE r.run_id = $1) - $2",
        &[
            uuid(claimed.run).into(),
            i64::try_from(MOST_REQUESTS).unwrap_or(i64::MAX).into(),
        ],
    )?;
    Ok(())
}
