//! Square's streams, and the request of each.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::record::Window;
use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    /// Where the records lie in an answer.
    pub list: &'static str,
    pub key: &'static [&'static str],
    /// The field that passes are cut by; empty: the stream is read whole.
    pub stamp: &'static str,
    pub call: Call,
    /// The state in `status` that is not final. A list that is cut by creation is read again from the oldest such on.
    pub open: Option<&'static str>,
}

pub enum Call {
    Get(&'static [&'static str]),
    /// A list that names one location.
    GetByLocation(&'static [&'static str]),
    Post(&'static [&'static str]),
    /// A search that names up to ten locations.
    PostByLocations(&'static [&'static str]),
}

const fn spec(
    name: &'static str,
    list: &'static str,
    default: bool,
    stamp: &'static str,
    call: Call,
) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        list,
        key: &["id"],
        stamp,
        call,
        open: None,
    }
}

const SPECS: &[Spec] = &[
    spec(
        "locations",
        "locations",
        true,
        "",
        Call::Get(&["v2", "locations"]),
    ),
    spec(
        "payments",
        "payments",
        true,
        "updated_at",
        Call::GetByLocation(&["v2", "payments"]),
    ),
    spec(
        "refunds",
        "refunds",
        true,
        "updated_at",
        Call::Get(&["v2", "refunds"]),
    ),
    spec(
        "orders",
        "orders",
        true,
        "updated_at",
        Call::PostByLocations(&["v2", "orders", "search"]),
    ),
    Spec {
        key: &["catalog_object_id", "location_id", "state"],
        ..spec(
            "inventory_counts",
            "counts",
            true,
            "calculated_at",
            Call::Post(&["v2", "inventory", "counts", "batch-retrieve"]),
        )
    },
    spec(
        "team_members",
        "team_members",
        true,
        "",
        Call::Post(&["v2", "team-members", "search"]),
    ),
    // Whole, because what was deleted is told by a webhook alone, and otherwise by not being there.
    spec(
        "timecards",
        "timecards",
        true,
        "",
        Call::Post(&["v2", "labor", "timecards", "search"]),
    ),
    spec(
        "catalog_objects",
        "objects",
        false,
        "updated_at",
        Call::Post(&["v2", "catalog", "search"]),
    ),
    Spec {
        open: Some("SENT"),
        ..spec(
            "payouts",
            "payouts",
            false,
            "created_at",
            Call::GetByLocation(&["v2", "payouts"]),
        )
    },
    // Whole, for the same reason.
    spec(
        "customers",
        "customers",
        false,
        "",
        Call::Get(&["v2", "customers"]),
    ),
];

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    fn whole(&self) -> bool {
        self.stamp.is_empty()
    }

    fn optional(&self) -> bool {
        !matches!(self.about.name, "locations" | "payments" | "refunds")
    }
}

/// `begin_time` of payments and refunds is one year ago where it is not said. Nothing of Square's is older than this.
const BEGINNING: &str = "2009-01-01T00:00:00Z";

/// What the catalogue holds that sales and stock refer to.
const CATALOG: &[&str] = &[
    "ITEM",
    "ITEM_VARIATION",
    "CATEGORY",
    "TAX",
    "DISCOUNT",
    "MODIFIER_LIST",
    "MODIFIER",
];

/// Most locations of one search.
const LOCATIONS_AT_ONCE: usize = 10;

impl Spec {
    /// How many locations one request names; 0: none.
    pub fn locations(&self) -> usize {
        match self.call {
            Call::Get(_) | Call::Post(_) => 0,
            Call::GetByLocation(_) => 1,
            Call::PostByLocations(_) => LOCATIONS_AT_ONCE,
        }
    }

    /// The parameters of a list.
    pub fn query(&self, window: Window) -> Vec<(&'static str, String)> {
        let from = stamp(window.from.unwrap_or_default());
        let to = stamp(window.to);
        match self.about.name {
            "payments" | "refunds" => vec![
                ("begin_time", BEGINNING.to_owned()),
                ("updated_at_begin_time", from),
                ("updated_at_end_time", to),
                ("sort_field", "UPDATED_AT".to_owned()),
                ("sort_order", "ASC".to_owned()),
                ("limit", "100".to_owned()),
            ],
            "payouts" => vec![
                ("begin_time", from),
                ("end_time", to),
                ("sort_order", "ASC".to_owned()),
                ("limit", "100".to_owned()),
            ],
            // In an order that an edit does not change.
            "customers" => vec![
                ("sort_field", "CREATED_AT".to_owned()),
                ("sort_order", "ASC".to_owned()),
                ("limit", "100".to_owned()),
            ],
            _ => Vec::new(),
        }
    }

    /// The body of a search. `is_first`: nothing of the stream has been read yet.
    pub fn body(&self, window: Window, is_first: bool) -> Value {
        let from = stamp(window.from.unwrap_or_default());
        let to = stamp(window.to);
        match self.about.name {
            "orders" => json!({
                "limit": 500,
                "query": {
                    "filter": {"date_time_filter": {"updated_at": {"start_at": from, "end_at": to}}},
                    // Another field than the one filtered by is an error.
                    "sort": {"sort_field": "UPDATED_AT", "sort_order": "ASC"},
                },
            }),
            // All there is, at first: what was counted long ago is in stock, too.
            "inventory_counts" if is_first => json!({"limit": 1000}),
            "inventory_counts" => json!({"limit": 1000, "updated_after": from}),
            "timecards" => json!({
                "limit": 200,
                "query": {"sort": {"field": "CREATED_AT", "order": "ASC"}},
            }),
            "catalog_objects" if is_first => json!({
                "limit": 1000,
                "object_types": CATALOG,
                "include_deleted_objects": true,
            }),
            "catalog_objects" => json!({
                "limit": 1000,
                "object_types": CATALOG,
                "include_deleted_objects": true,
                "begin_time": from,
            }),
            _ => json!({"limit": 200}),
        }
    }
}

fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}
