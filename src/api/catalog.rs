//! The types of connectors.

use connector_service_core::source::{CATALOG, Field, OF_ALL, OF_RUNS, TYPES};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value};

/// One row for each type that `connectors.type` may hold; `connector_service_catalog()` gives its columns their names.
#[pg_extern(schema = "_connector_service", immutable, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)]
fn connector_service_types() -> TableIterator<
    'static,
    (
        name!(type_name, String),
        name!(available, bool),
        name!(kind, Option<String>),
        name!(default_frequency, Option<String>),
        name!(default_streams, Option<Vec<String>>),
        name!(streams, Option<Vec<String>>),
        name!(credentials, Option<JsonB>),
        name!(config, Option<JsonB>),
    ),
> {
    let row = |name: &&str| {
        let source = CATALOG.iter().find(|source| source.name() == *name);
        let of_runs: &[Field] = match source.is_some_and(|source| source.is_asked()) {
            true => OF_RUNS,
            false => &[],
        };
        let Some(about) = source.map(|source| source.about()) else {
            return (
                (*name).to_owned(),
                false,
                None,
                None,
                None,
                None,
                None,
                None,
            );
        };
        let names = |default_only: bool| {
            let streams = about.streams.iter();
            let streams = streams.filter(|stream| stream.default || !default_only);
            Some(
                streams
                    .map(|stream| stream.name.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        (
            (*name).to_owned(),
            true,
            Some(about.kind.to_owned()),
            Some(about.frequency.to_owned()),
            names(true),
            names(false),
            Some(meanings(about.credentials)),
            Some(meanings(&[about.config, of_runs, OF_ALL].concat())),
        )
    };
    TableIterator::new(TYPES.iter().map(row).collect::<Vec<_>>())
}

fn meanings(fields: &[Field]) -> JsonB {
    let meaning = |field: &Field| (field.name.to_owned(), Value::from(field.meaning));
    JsonB(Value::Object(
        fields.iter().map(meaning).collect::<Map<_, _>>(),
    ))
}
