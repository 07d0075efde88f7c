//! Stripe's streams, and the events that tell of their changes.
//!
//! The official package's list of event types is held against these lists: see `pg_test/stripe/events.json`, which names
//! the types that are not asked for, and why.

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
    /// Types of events whose object has changed; none: what is listed does not change with an event.
    pub events: &'static [&'static str],
    /// Types of events about something else whose field of this name tells which object has changed with it. Together
    /// with `events` at most 20, which is what one request may name.
    pub others: &'static [(&'static str, &'static str)],
    /// Whether a first pass reads all there is: what others refer to is needed however old it is.
    pub is_reference: bool,
    /// Whether something is not final when it comes, and no event tells when it is: `status` is then "pending", and
    /// `available_on` says when it is due.
    pub settles: bool,
}

const fn spec(name: &'static str, object: &'static str, default: bool) -> Spec {
    Spec {
        about: StreamAbout { name, default },
        object,
        expand: &[],
        filter: &[],
        events: &[],
        others: &[],
        is_reference: false,
        settles: false,
    }
}

/// A stream's name is the path of its list.
const SPECS: &[Spec] = &[
    Spec {
        // The payment method, which is the category of sales, is the charge's.
        expand: &["data.source"],
        settles: true,
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
        // `disputed`, and `amount_refunded` where a refund fails later, change without an event of the charge's own.
        others: &[
            ("charge.dispute.created", "charge"),
            ("charge.dispute.updated", "charge"),
            ("charge.dispute.closed", "charge"),
            ("charge.dispute.funds_withdrawn", "charge"),
            ("charge.dispute.funds_reinstated", "charge"),
            ("charge.refund.updated", "charge"),
            ("refund.updated", "charge"),
            ("refund.failed", "charge"),
        ],
        ..spec("charges", "charge", true)
    },
    Spec {
        events: &[
            "refund.created",
            "refund.updated",
            "refund.failed",
            "charge.refund.updated",
        ],
        ..spec("refunds", "refund", true)
    },
    Spec {
        events: &[
            "payout.created",
            "payout.paid",
            "payout.failed",
            "payout.canceled",
            "payout.updated",
            "payout.reconciliation_completed",
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
            "invoice.deleted",
            "invoice.finalization_failed",
            "invoice.finalized",
            "invoice.marked_uncollectible",
            "invoice.overdue",
            "invoice.overpaid",
            "invoice.paid",
            "invoice.payment_action_required",
            "invoice.payment_attempt_required",
            "invoice.payment_failed",
            "invoice.payment_succeeded",
            "invoice.sent",
            "invoice.updated",
            "invoice.voided",
            "invoice.will_be_due",
        ],
        others: &[
            ("invoice_payment.paid", "invoice"),
            ("credit_note.created", "invoice"),
            ("credit_note.updated", "invoice"),
            ("credit_note.voided", "invoice"),
        ],
        ..spec("invoices", "invoice", false)
    },
    Spec {
        events: &[
            "payment_intent.created",
            "payment_intent.processing",
            "payment_intent.requires_action",
            "payment_intent.amount_capturable_updated",
            "payment_intent.partially_funded",
            "payment_intent.payment_failed",
            "payment_intent.succeeded",
            "payment_intent.canceled",
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
            "customer.subscription.paused",
            "customer.subscription.resumed",
            "customer.subscription.pending_update_applied",
            "customer.subscription.pending_update_expired",
            "customer.subscription.trial_will_end",
        ],
        is_reference: true,
        ..spec("subscriptions", "subscription", false)
    },
    Spec {
        events: &["product.created", "product.updated", "product.deleted"],
        is_reference: true,
        ..spec("products", "product", false)
    },
    Spec {
        events: &["price.created", "price.updated", "price.deleted"],
        is_reference: true,
        ..spec("prices", "price", false)
    },
    Spec {
        events: &["customer.created", "customer.updated", "customer.deleted"],
        others: &[
            ("customer.discount.created", "customer"),
            ("customer.discount.updated", "customer"),
            ("customer.discount.deleted", "customer"),
        ],
        is_reference: true,
        ..spec("customers", "customer", false)
    },
];

impl Spec {
    /// The types of events to ask for, each once.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let others = self.others.iter().map(|(kind, _)| *kind);
        self.events.iter().copied().chain(others)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_names_at_most_twenty_types_of_events_each_once() {
        for spec in SPECS {
            let kinds: Vec<&str> = spec.kinds().collect();
            let different: std::collections::HashSet<&&str> = kinds.iter().collect();
            assert_eq!(different.len(), kinds.len(), "{}", spec.about.name);
            assert!(kinds.len() <= 20, "{}", spec.about.name);
        }
    }
}
