//! QuickBooks' streams, and the conditions of their queries.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    pub entity: &'static str,
    /// Whether rows that are not active are left out unless asked for.
    pub named: bool,
    /// Read whole: a sale changes what is on hand, and may not move the stamp.
    pub whole: bool,
    /// Whether change data capture tells what was deleted.
    pub capture: bool,
}

const fn spec(name: &'static str, entity: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        entity,
        named: false,
        whole: false,
        capture: true,
    }
}

const SPECS: &[Spec] = &[
    spec("invoices", "Invoice", true),
    spec("sales_receipts", "SalesReceipt", true),
    spec("credit_memos", "CreditMemo", true),
    spec("refund_receipts", "RefundReceipt", true),
    spec("bills", "Bill", true),
    spec("purchases", "Purchase", true),
    spec("vendor_credits", "VendorCredit", true),
    Spec {
        named: true,
        whole: true,
        ..spec("items", "Item", true)
    },
    Spec {
        capture: false,
        ..spec("time_activities", "TimeActivity", true)
    },
    spec("payments", "Payment", false),
    spec("bill_payments", "BillPayment", false),
    spec("deposits", "Deposit", false),
    spec("journal_entries", "JournalEntry", false),
    Spec {
        named: true,
        ..spec("accounts", "Account", false)
    },
    Spec {
        named: true,
        ..spec("customers", "Customer", false)
    },
    Spec {
        named: true,
        ..spec("employees", "Employee", false)
    },
    Spec {
        named: true,
        ..spec("vendors", "Vendor", false)
    },
];

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    fn ordered(&self) -> bool {
        true
    }

    fn whole(&self) -> bool {
        self.whole
    }
}

impl Spec {
    /// The conditions of a query: from a moment on, up to another.
    pub fn conditions(&self, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>) -> String {
        let mut conditions = Vec::new();
        if self.named {
            conditions.push("Active IN (true, false)".to_owned());
        }
        if let Some(from) = from {
            conditions.push(format!("MetaData.LastUpdatedTime >= '{}'", stamp(from)));
        }
        if let Some(to) = to {
            conditions.push(format!("MetaData.LastUpdatedTime <= '{}'", stamp(to)));
        }
        match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        }
    }
}

pub fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
