//! Sales as each vendor shows them: raw records that the built-in mappings read.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// One sale, or one refund.
#[derive(Debug, Clone, Copy)]
pub struct Sale {
    pub at: DateTime<Utc>,
    pub cents: i64,
    pub currency: &'static str,
}

impl Sale {
    pub fn later(self, minutes: i64) -> Sale {
        Sale {
            at: self.at + TimeDelta::minutes(minutes),
            ..self
        }
    }

    pub fn of(self, cents: i64) -> Sale {
        Sale { cents, ..self }
    }
}

/// A record of a connector, by its stream.
pub struct Record {
    pub connector: usize,
    pub stream: &'static str,
    pub data: Value,
}

/// As a decimal text.
pub fn decimal(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

/// As a JSON number, exactly.
fn number(cents: i64) -> Value {
    serde_json::from_str(&decimal(cents)).expect("a number")
}

fn day(sale: Sale) -> String {
    sale.at.format("%Y-%m-%d").to_string()
}

pub fn order(sale: Sale) -> (&'static str, Value) {
    let money =
        json!({"shopMoney": {"amount": decimal(sale.cents), "currencyCode": sale.currency}});
    let data = json!({"totalPriceSet": money, "processedAt": sale.at.to_rfc3339(), "sourceName": "web",
        "displayFinancialStatus": "PAID", "test": false, "cancelledAt": null});
    ("orders", data)
}

pub fn shop_refund(sale: Sale) -> (&'static str, Value) {
    let money =
        json!({"shopMoney": {"amount": decimal(sale.cents), "currencyCode": sale.currency}});
    let data = json!({"totalRefundedSet": money, "createdAt": sale.at.to_rfc3339(), "order": {"test": false, "cancelledAt": null}});
    ("refunds", data)
}

/// What Stripe keeps.
pub fn fee(cents: i64) -> i64 {
    cents * 29 / 1000 + 30
}

fn transaction(sale: Sale, amount: i64, fee: i64, category: &str) -> (&'static str, Value) {
    let data = json!({"amount": amount, "fee": fee, "net": amount - fee, "created": sale.at.timestamp(),
        "currency": sale.currency.to_lowercase(), "reporting_category": category});
    ("balance_transactions", data)
}

pub fn charge(sale: Sale) -> (&'static str, Value) {
    transaction(sale, sale.cents, fee(sale.cents), "charge")
}

pub fn charge_refund(sale: Sale) -> (&'static str, Value) {
    transaction(sale, -sale.cents, 0, "refund")
}

/// With a tip, which is the staff's.
pub fn square_payment(sale: Sale) -> (&'static str, Value) {
    let data = json!({"status": "COMPLETED", "created_at": sale.at.to_rfc3339(), "location_id": "L1",
        "amount_money": {"amount": sale.cents, "currency": sale.currency}, "tip_money": {"amount": 100, "currency": sale.currency}});
    ("payments", data)
}

pub fn receipt(sale: Sale) -> (&'static str, Value) {
    let data = json!({"TotalAmt": number(sale.cents), "TxnDate": day(sale), "CurrencyRef": {"value": sale.currency}});
    ("sales_receipts", data)
}

pub fn invoice(sale: Sale) -> (&'static str, Value) {
    ("invoices", receipt(sale).1)
}

/// Two lines, and the tax on them.
pub fn bill(sale: Sale) -> (&'static str, Value) {
    let tax = sale.cents / 6;
    let (first, second) = (sale.cents / 3, sale.cents - sale.cents / 3 - tax);
    let line = |cents: i64, account: &str| {
        json!({"Amount": number(cents), "DetailType": "AccountBasedExpenseLineDetail",
        "AccountBasedExpenseLineDetail": {"AccountRef": {"name": account}}})
    };
    let data = json!({"TxnDate": day(sale), "CurrencyRef": {"value": sale.currency},
        "Line": [line(first, "Rent"), line(second, "Beans")], "TxnTaxDetail": {"TotalTax": number(tax)}});
    ("bills", data)
}

pub fn erp_invoice(sale: Sale) -> (&'static str, Value) {
    let data = json!({"grand_total": number(sale.cents), "posting_date": day(sale), "currency": sale.currency,
        "docstatus": 1, "is_opening": "No", "cost_center": "Main"});
    ("sales_invoices", data)
}

pub fn opportunity(sale: Sale) -> (&'static str, Value) {
    let data = json!({"Amount": number(sale.cents), "CloseDate": day(sale), "Type": "New", "IsWon": true, "IsDeleted": false,
        "CurrencyIsoCode": sale.currency});
    ("opportunities", data)
}

/// A row of a bank's export.
pub fn row(sale: Sale) -> (&'static str, Value) {
    (
        "rows",
        json!({"Day": day(sale), "Amount": decimal(sale.cents)}),
    )
}
