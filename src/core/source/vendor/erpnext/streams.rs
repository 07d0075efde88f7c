//! ERPNext's streams.

use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    pub doctype: &'static str,
    /// Whether the child rows count.
    pub children: bool,
    /// Whether the site may be without it: an app of its own, or a right that few have.
    pub optional: bool,
    /// A further condition on the documents.
    pub filter: Option<(&'static str, i64)>,
}

const fn spec(name: &'static str, doctype: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        doctype,
        children: false,
        optional: false,
        filter: None,
    }
}

const SPECS: &[Spec] = &[
    spec("sales_invoices", "Sales Invoice", true),
    spec("purchase_invoices", "Purchase Invoice", true),
    spec("bins", "Bin", true),
    Spec {
        children: true,
        optional: true,
        ..spec("timesheets", "Timesheet", true)
    },
    Spec {
        optional: true,
        ..spec("expense_claims", "Expense Claim", true)
    },
    Spec {
        optional: true,
        ..spec("salary_slips", "Salary Slip", true)
    },
    spec("items", "Item", false),
    spec("customers", "Customer", false),
    spec("suppliers", "Supplier", false),
    spec("payment_entries", "Payment Entry", false),
    spec("journal_entries", "Journal Entry", false),
    Spec {
        // Its name is not the final one before.
        filter: Some(("to_rename", 0)),
        ..spec("gl_entries", "GL Entry", false)
    },
    Spec {
        filter: Some(("to_rename", 0)),
        ..spec("stock_ledger_entries", "Stock Ledger Entry", false)
    },
    spec("employees", "Employee", false),
];

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    fn ordered(&self) -> bool {
        true
    }
}
