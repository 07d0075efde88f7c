//! QuickBooks' streams, and the conditions of their queries.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    pub entity: &'static str,
    pub fields: &'static str,
    /// Whether rows that are not active are left out unless asked for.
    pub named: bool,
    /// Read whole: what has changed or is gone is not told otherwise.
    pub whole: bool,
    /// Whether change data capture tells what was deleted.
    pub capture: bool,
}

const fn spec(name: &'static str, entity: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        entity,
        fields: "*",
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
        // A sale changes what is on hand, and may not move the stamp.
        named: true,
        whole: true,
        // The star leaves it out.
        fields: "*, Sku",
        ..spec("items", "Item", true)
    },
    Spec {
        // Change data capture leaves it out: what was deleted is what does not come.
        whole: true,
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

    /// Revenue and costs stand without stock and hours, which not every plan has.
    fn optional(&self) -> bool {
        self.whole || !self.about.default
    }
}

impl Spec {
    /// The conditions of a query: from a moment on, up to another.
    pub fn conditions(&self, from: Option<DateTime<Utc>>, to: DateTime<Utc>) -> String {
        let mut conditions = Vec::new();
        if self.named {
            conditions.push("Active IN (true, false)".to_owned());
        }
        // Those of a list that is read whole may have changed without their stamps.
        let is_open = self.named && self.whole;
        let beginning = (!is_open).then_some(DateTime::UNIX_EPOCH);
        if let Some(from) = from.or(beginning) {
            conditions.push(format!("MetaData.LastUpdatedTime >= '{}'", stamp(from)));
        }
        conditions.push(format!("MetaData.LastUpdatedTime <= '{}'", stamp(to)));
        format!(" WHERE {}", conditions.join(" AND "))
    }
}

pub fn stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
