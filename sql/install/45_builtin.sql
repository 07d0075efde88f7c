-- builtin: the mappings of the vendors' records that come with CREATE EXTENSION.
--
-- One rule for each money. Where a vendor shows the same money several times (an order and its payments, an
-- invoice and its charge, a bill and its payment), one stream counts and the others have no mapping.
-- Money is what the customer was charged or what the supplier asked for, taxes included: the one amount that
-- all six vendors state. It stays in the currency of the record. A refund that is a record of its own is a
-- cost of its own day, and the sale keeps its amount. inventory is pieces: a stock record counts once, on the
-- day it last changed, so the sum over all days is the stock now. staffing is hours.
-- A filter names what is known not to count and lets everything else pass: a record that lacks what it should
-- have goes to quarantine, where somebody sees it, instead of counting as nothing. For the same reason zero is
-- left out by exists(... ? (@ == 0)): compared directly, a text would be neither zero nor not, and would not pass.
-- The class says how close a vendor is to the sale, where several vendors of a tenant see the same one: see 58_decide.sql.
-- Ids are fixed: 100 shopify, 200 square, 300 stripe, 400 quickbooks, 500 salesforce, 600 erpnext.
-- Operators in what follows are PostgreSQL's own, whatever the schema already holds.
SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);

INSERT INTO @extschema@.metric_mappings (mapping_id, connector_type, class, stream, metric_type, items_path,
    value_path, date_path, category_path, currency_path, filter, negative, factor, unit, builtin, note) VALUES

-- Shopify, in the shapes of the GraphQL Admin API.
(100, 'shopify', 'sales', 'orders', 'revenue', NULL,
    '$.totalPriceSet.shopMoney.amount', '$.processedAt', '$.sourceName', '$.totalPriceSet.shopMoney.currencyCode',
    '!($.test == true) && !($.cancelledAt != null) && !($.displayFinancialStatus == "VOIDED" || $.displayFinancialStatus == "EXPIRED")',
    'costs', 1, 'major', true,
    'The order''s total as it was sold, by sales channel: the lines alone would leave out shipping, taxes and discounts on the whole order, and transactions repeat the order.'),
(101, 'shopify', 'sales', 'refunds', 'costs', NULL,
    '$.totalRefundedSet.shopMoney.amount', '$.createdAt', '"refunds"', '$.totalRefundedSet.shopMoney.currencyCode',
    '!($.order.test == true) && !($.order.cancelledAt != null)',
    'reject', 1, 'major', true,
    'A refund on its own day, unless its order was cancelled: then the order does not count either.'),
(102, 'shopify', 'sales', 'inventory_levels', 'inventory', NULL,
    '$.quantities[*] ? (@.name == "on_hand").quantity', '$.updatedAt', '$.location.name', NULL,
    '!($.isActive == false) && !($.item.tracked == false)',
    'net', 1, 'major', true,
    'Pieces on hand by location, of tracked items; below zero where more was sold than was there.'),

-- Square. Orders have no mapping: their payments count.
(200, 'square', 'payments', 'payments', 'revenue', NULL,
    '$.amount_money.amount', '$.created_at', '$.location_id', '$.amount_money.currency',
    '$.status == "COMPLETED"',
    'costs', 1, 'minor', true,
    'Completed payments by location, without tips, which belong to the staff.'),
(201, 'square', 'payments', 'payments', 'costs', '$.processing_fee[*]',
    '$.amount_money.amount', '$record.created_at', '"fees"', '$.amount_money.currency',
    '$record.status == "COMPLETED"',
    'net', 1, 'minor', true,
    'What Square keeps, on the day of the payment; an adjustment may give some of it back.'),
(202, 'square', 'payments', 'refunds', 'costs', NULL,
    '$.amount_money.amount', '$.created_at', '"refunds"', '$.amount_money.currency',
    '$.status == "COMPLETED"',
    'reject', 1, 'minor', true,
    'Completed refunds on their own day; a refunded tip is part of them.'),
(203, 'square', 'payments', 'inventory_counts', 'inventory', NULL,
    '$.quantity', '$.calculated_at', '$.location_id', NULL,
    '$.state == "IN_STOCK"',
    'net', 1, 'major', true,
    'Pieces in stock by location; other states say where pieces went.');

INSERT INTO @extschema@.metric_mappings (mapping_id, connector_type, class, stream, metric_type, items_path,
    value_path, until_path, date_path, category_path, currency_path, filter, negative, factor, unit, builtin, note) VALUES
(204, 'square', 'payments', 'timecards', 'staffing', NULL,
    '$.start_at', '$.end_at', '$.start_at', '$.wage.title', NULL,
    '$.status == "CLOSED"',
    'reject', 1, 'major', true,
    'Hours by job, on the day the work began, breaks included.'),
(205, 'square', 'payments', 'timecards', 'staffing', '$.breaks[*]',
    '$.start_at', '$.end_at', '$record.start_at', '$record.wage.title', NULL,
    '$record.status == "CLOSED" && $.is_paid == false && exists($.end_at)',
    'net', -1, 'major', true,
    'Unpaid breaks reduce the hours of their timecard.');

INSERT INTO @extschema@.metric_mappings (mapping_id, connector_type, class, stream, metric_type, items_path,
    value_path, date_path, category_path, currency_path, filter, negative, factor, unit, builtin, note) VALUES
-- Stripe, from its ledger: gross amounts, refunds, disputes and fees come from one list whose amounts never change, in
-- the currency the account is paid in. Charges, refunds, disputes and invoices have no mapping: they repeat it.
-- The ledger itself does not say whether it is a test; a source that was expanded does.
(300, 'stripe', 'payments', 'balance_transactions', 'revenue', NULL,
    '$.amount', '$.created', '$.source.payment_method_details.type', '$.currency',
    '$.reporting_category == "charge" && !($.livemode == false) && !($.source.livemode == false)',
    'costs', 1, 'stripe', true,
    'Gross charges, by payment method where the source is expanded.'),
(301, 'stripe', 'payments', 'balance_transactions', 'revenue', NULL,
    '$.amount', '$.created', '$.source.payment_method_details.type', '$.currency',
    '$.reporting_category == "partial_capture_reversal" && !($.livemode == false) && !($.source.livemode == false)',
    'net', 1, 'stripe', true,
    'The part of an authorization that was not captured: it was never sold, so it reduces revenue and is no refund.'),
(302, 'stripe', 'payments', 'balance_transactions', 'costs', NULL,
    '$.amount', '$.created', '"refunds"', '$.currency',
    '($.reporting_category == "refund" || $.reporting_category == "refund_failure" || $.reporting_category == "charge_failure") && !($.livemode == false) && !($.source.livemode == false)',
    'net', -1, 'stripe', true,
    'Refunds, and charges that failed after all; a refund that failed comes back.'),
(303, 'stripe', 'payments', 'balance_transactions', 'costs', NULL,
    '$.amount', '$.created', '"disputes"', '$.currency',
    '($.reporting_category == "dispute" || $.reporting_category == "dispute_reversal") && !($.livemode == false) && !($.source.livemode == false)',
    'net', -1, 'stripe', true,
    'Money taken away by disputes; a dispute that was won gives it back.'),
(304, 'stripe', 'payments', 'balance_transactions', 'costs', NULL,
    '$.fee', '$.created', '"fees"', '$.currency',
    '!exists($.fee ? (@ == 0)) && !($.livemode == false) && !($.source.livemode == false)',
    'net', 1, 'stripe', true,
    'What Stripe keeps of a transaction.'),
(305, 'stripe', 'payments', 'balance_transactions', 'costs', NULL,
    '$.amount', '$.created', '"fees"', '$.currency',
    '($.reporting_category == "fee" || $.reporting_category == "network_cost" || $.reporting_category == "tax") && !($.livemode == false) && !($.source.livemode == false)',
    'net', -1, 'stripe', true,
    'What Stripe charges by itself, with the taxes on it.'),

-- Salesforce. CurrencyIsoCode is there in organizations with several currencies only.
(500, 'salesforce', 'pipeline', 'opportunities', 'revenue', NULL,
    '$.Amount', '$.CloseDate', '$.Type', '$.CurrencyIsoCode',
    '$.IsWon == true && !($.IsDeleted == true) && !($.Amount == null) && exists($.CurrencyIsoCode)',
    'costs', 1, 'major', true,
    'Won opportunities by type, on their close date; one without an amount has nothing to count.'),
(550, 'salesforce', 'pipeline', 'opportunities', 'revenue', NULL,
    '$.Amount', '$.CloseDate', '$.Type', NULL,
    '$.IsWon == true && !($.IsDeleted == true) && !($.Amount == null) && !exists($.CurrencyIsoCode)',
    'costs', 1, 'major', true,
    'The same where the organization has one currency, taken to be the tenant''s.'),

-- ERPNext. Only what is submitted counts (docstatus 1). POS Invoices, Payment Entries, Journal Entries and GL
-- Entries have no mapping: a POS Invoice becomes part of a Sales Invoice at closing, the others repeat invoices.
(600, 'erpnext', 'books', 'sales_invoices', 'revenue', NULL,
    '$.grand_total', '$.posting_date', '$.cost_center', '$.currency',
    '$.docstatus == 1 && !($.is_opening == "Yes") && !($.is_internal_customer == 1) && !($.status == "Internal Transfer")',
    'costs', 1, 'major', true,
    'Sales invoices by cost center; a return has a negative total and is a refund of its own day.'),
(601, 'erpnext', 'books', 'purchase_invoices', 'costs', NULL,
    '$.grand_total', '$.posting_date', '$.cost_center', '$.currency',
    '$.docstatus == 1 && !($.is_opening == "Yes") && !($.is_internal_supplier == 1) && !($.status == "Internal Transfer")',
    'net', 1, 'major', true,
    'Purchase invoices by cost center; a return to the supplier reduces the costs of its day.'),
(602, 'erpnext', 'books', 'expense_claims', 'costs', NULL,
    '$.total_sanctioned_amount', '$.posting_date', '$.cost_center', '$.currency',
    '$.docstatus == 1 && $.approval_status == "Approved" && exists($.currency)',
    'net', 1, 'major', true,
    'What was approved of a claim, by cost center, before advances are deducted.'),
(652, 'erpnext', 'books', 'expense_claims', 'costs', NULL,
    '$.total_sanctioned_amount', '$.posting_date', '$.cost_center', NULL,
    '$.docstatus == 1 && $.approval_status == "Approved" && !exists($.currency)',
    'net', 1, 'major', true,
    'The same for versions whose claims have no currency: it is the company''s, taken to be the tenant''s.'),
(603, 'erpnext', 'books', 'salary_slips', 'costs', NULL,
    '$.gross_pay', '$.posting_date', '"payroll"', '$.currency',
    '$.docstatus == 1',
    'net', 1, 'major', true,
    'Gross pay: what is withheld of it is paid by the company all the same.'),
(604, 'erpnext', 'books', 'bins', 'inventory', NULL,
    '$.actual_qty', '$.modified', '$.warehouse', NULL,
    NULL,
    'net', 1, 'major', true,
    'Pieces by warehouse; Stock Ledger Entries would repeat them as movements.'),
(605, 'erpnext', 'books', 'timesheets', 'staffing', '$.time_logs[*]',
    '$.hours', '$.from_time', '$.activity_type', NULL,
    '$record.docstatus == 1',
    'reject', 1, 'major', true,
    'Hours by activity, each log on its own day.'),
(606, 'erpnext', 'books', 'timesheets', 'staffing', NULL,
    '$.total_hours', '$.start_date', NULL, NULL,
    '$.docstatus == 1 && !exists($.time_logs[*])',
    'reject', 1, 'major', true,
    'Where timesheets come without their logs: all hours on the first day.');

-- QuickBooks leaves the currency out where a company has only one, so each mapping of money is there twice: as
-- written, and 50 ids further for records without a currency, in the tenant's. A void transaction has amount 0, and
-- what the change feed reports as deleted is nothing but an id.
-- Payments, bill payments, deposits and journal entries have no mapping: they settle or repeat what is here.
INSERT INTO @extschema@.metric_mappings (mapping_id, connector_type, class, stream, metric_type, items_path,
    value_path, date_path, category_path, currency_path, filter, negative, factor, unit, builtin, note)
SELECT m.mapping_id OPERATOR(pg_catalog.+) variant.plus, 'quickbooks', 'books', m.stream, m.metric_type, m.items_path,
    m.value_path, m.date_path, m.category_path, CASE WHEN variant.has_currency THEN m.currency_path END,
    pg_catalog.format('%s && %s(%s)', m.filter, variant.condition, m.currency_path),
    m.negative, m.factor, 'major', true, m.note
FROM (VALUES (0, true, 'exists'), (50, false, '!exists')) AS variant(plus, has_currency, condition), (VALUES
(400, 'invoices', 'revenue', NULL,
    '$.TotalAmt', '$.TxnDate', '$.DepartmentRef.name', '$.CurrencyRef.value',
    '!($.status == "Deleted") && !exists($.TotalAmt ? (@ == 0))',
    'costs', 1,
    'Invoices by location, on their date, paid or not.'),
(401, 'sales_receipts', 'revenue', NULL,
    '$.TotalAmt', '$.TxnDate', '$.DepartmentRef.name', '$.CurrencyRef.value',
    '!($.status == "Deleted") && !exists($.TotalAmt ? (@ == 0))',
    'costs', 1,
    'Sales that were paid at once, by location.'),
(402, 'credit_memos', 'costs', NULL,
    '$.TotalAmt', '$.TxnDate', '"refunds"', '$.CurrencyRef.value',
    '!($.status == "Deleted") && !exists($.TotalAmt ? (@ == 0))',
    'reject', 1,
    'What is credited to customers, as a cost of its own day.'),
(403, 'refund_receipts', 'costs', NULL,
    '$.TotalAmt', '$.TxnDate', '"refunds"', '$.CurrencyRef.value',
    '!($.status == "Deleted") && !exists($.TotalAmt ? (@ == 0))',
    'reject', 1,
    'What is paid back to customers.'),
(404, 'bills', 'costs', '$.Line[*]',
    '$.Amount', '$record.TxnDate', '$.* ? (@.type() == "object").keyvalue() ? (@.key == "AccountRef" || @.key == "ItemRef").value.name', '$record.CurrencyRef.value',
    '!($.DetailType == "SubTotalLineDetail" || $.DetailType == "DescriptionOnly") && !exists($.Amount ? (@ == 0))',
    'net', 1,
    'Lines of bills by account or item: with the tax, a mapping of its own, they add up to the bill''s total.'),
(405, 'bills', 'costs', NULL,
    '$.TxnTaxDetail.TotalTax', '$.TxnDate', '"taxes"', '$.CurrencyRef.value',
    'exists($.TxnTaxDetail.TotalTax) && !exists($.TxnTaxDetail.TotalTax ? (@ == 0))',
    'net', 1,
    'Tax on bills, which their lines are without.'),
(406, 'purchases', 'costs', '$.Line[*]',
    '$.Amount', '$record.TxnDate', '$.* ? (@.type() == "object").keyvalue() ? (@.key == "AccountRef" || @.key == "ItemRef").value.name', '$record.CurrencyRef.value',
    '!($record.Credit == true) && !($.DetailType == "SubTotalLineDetail" || $.DetailType == "DescriptionOnly") && !exists($.Amount ? (@ == 0))',
    'net', 1,
    'Lines of purchases paid by cash, check or card, by account or item.'),
(407, 'purchases', 'costs', NULL,
    '$.TxnTaxDetail.TotalTax', '$.TxnDate', '"taxes"', '$.CurrencyRef.value',
    '!($.Credit == true) && exists($.TxnTaxDetail.TotalTax) && !exists($.TxnTaxDetail.TotalTax ? (@ == 0))',
    'net', 1,
    'Tax on purchases, which their lines are without.'),
(408, 'purchases', 'costs', '$.Line[*]',
    '$.Amount', '$record.TxnDate', '$.* ? (@.type() == "object").keyvalue() ? (@.key == "AccountRef" || @.key == "ItemRef").value.name', '$record.CurrencyRef.value',
    '$record.Credit == true && !($.DetailType == "SubTotalLineDetail" || $.DetailType == "DescriptionOnly") && !exists($.Amount ? (@ == 0))',
    'net', -1,
    'Money back on a card reduces the costs of its account.'),
(409, 'purchases', 'costs', NULL,
    '$.TxnTaxDetail.TotalTax', '$.TxnDate', '"taxes"', '$.CurrencyRef.value',
    '$.Credit == true && exists($.TxnTaxDetail.TotalTax) && !exists($.TxnTaxDetail.TotalTax ? (@ == 0))',
    'net', -1,
    'Tax of what came back on a card.'),
(410, 'vendor_credits', 'costs', '$.Line[*]',
    '$.Amount', '$record.TxnDate', '$.* ? (@.type() == "object").keyvalue() ? (@.key == "AccountRef" || @.key == "ItemRef").value.name', '$record.CurrencyRef.value',
    '!($.DetailType == "SubTotalLineDetail" || $.DetailType == "DescriptionOnly") && !exists($.Amount ? (@ == 0))',
    'net', -1,
    'What suppliers credit reduces the costs of its account.'),
(411, 'vendor_credits', 'costs', NULL,
    '$.TxnTaxDetail.TotalTax', '$.TxnDate', '"taxes"', '$.CurrencyRef.value',
    'exists($.TxnTaxDetail.TotalTax) && !exists($.TxnTaxDetail.TotalTax ? (@ == 0))',
    'net', -1,
    'Tax of what suppliers credit.')
) AS m(mapping_id, stream, metric_type, items_path, value_path, date_path, category_path, currency_path, filter, negative, factor, note);

INSERT INTO @extschema@.metric_mappings (mapping_id, connector_type, class, stream, metric_type, items_path,
    value_path, date_path, category_path, currency_path, filter, negative, factor, unit, builtin, note) VALUES
(430, 'quickbooks', 'books', 'items', 'inventory', NULL,
    '$.QtyOnHand', '$.MetaData.LastUpdatedTime', '$.ParentRef.name', NULL,
    '$.Type == "Inventory" && !($.Active == false) && !($.status == "Deleted")',
    'net', 1, 'major', true,
    'Pieces of active inventory items by item category; below zero where more was sold than was there.'),
(431, 'quickbooks', 'books', 'time_activities', 'staffing', NULL,
    '$.Hours', '$.TxnDate', '$.DepartmentRef.name', NULL,
    'exists($.Hours)',
    'reject', 1, 'major', true,
    'Whole hours by location; an activity given by start and end has none and does not count.'),
(432, 'quickbooks', 'books', 'time_activities', 'staffing', NULL,
    '$.Minutes / 60', '$.TxnDate', '$.DepartmentRef.name', NULL,
    'exists($.Minutes) && !exists($.Minutes ? (@ == 0))',
    'reject', 1, 'major', true,
    'The minutes over the whole hours, as hours.');

SELECT pg_catalog.set_config('search_path', '@extschema@, pg_temp', true);
