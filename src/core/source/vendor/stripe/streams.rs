//! Stripe's streams.

use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    /// The word in `object` of what is listed.
    pub object: &'static str,
    pub expand: &'static [&'static str],
    /// Parameters of the list.
    pub filter: &'static [(&'static str, &'static str)],
    /// Types of events that tell of a change; none: what is listed never changes.
    pub events: &'static [&'static str],
}

const fn spec(name: &'static str, object: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        object,
        expand: &[],
        filter: &[],
        events: &[],
    }
}

/// A stream's name is the path of its list.
const SPECS: &[Spec] = &[
    Spec {
        // The payment method, which is the category of sales, is the charge's.
        expand: &["data.source"],
        ..spec("balance_transactions", "balance_transaction", true)
    },
    Spec {
        events: &[
            "charge.captured",
            "charge.expired",
            "charge.failed",
            "charge.pending",
            "charge.refunded",
            "charge.succeeded",
            "charge.updated",
        ],
        ..spec("charges", "charge", true)
    },
    Spec {
        events: &["refund.created", "refund.updated", "charge.refund.updated"],
        ..spec("refunds", "refund", true)
    },
    Spec {
        events: &[
            "payout.created",
            "payout.paid",
            "payout.failed",
            "payout.canceled",
            "payout.updated",
        ],
        ..spec("payouts", "payout", true)
    },
    Spec {
        events: &[
            "charge.dispute.created",
            "charge.dispute.updated",
            "charge.dispute.funds_withdrawn",
            "charge.dispute.funds_reinstated",
            "charge.dispute.closed",
        ],
        ..spec("disputes", "dispute", false)
    },
    Spec {
        events: &[
            "invoice.created",
            "invoice.finalized",
            "invoice.paid",
            "invoice.payment_failed",
            "invoice.voided",
            "invoice.marked_uncollectible",
            "invoice.updated",
            "invoice.deleted",
        ],
        ..spec("invoices", "invoice", false)
    },
    Spec {
        events: &[
            "payment_intent.succeeded",
            "payment_intent.canceled",
            "payment_intent.payment_failed",
            "payment_intent.amount_capturable_updated",
        ],
        ..spec("payment_intents", "payment_intent", false)
    },
    Spec {
        // Without it cancelled ones are hidden.
        filter: &[("status", "all")],
        events: &[
            "customer.subscription.created",
            "customer.subscription.updated",
            "customer.subscription.deleted",
        ],
        ..spec("subscriptions", "subscription", false)
    },
    Spec {
        events: &["product.created", "product.updated", "product.deleted"],
        ..spec("products", "product", false)
    },
    Spec {
        events: &["price.created", "price.updated", "price.deleted"],
        ..spec("prices", "price", false)
    },
];

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    /// The ledger has what counts.
    fn optional(&self) -> bool {
        self.about.name != "balance_transactions"
    }
}
