//! Shopify's streams, and the query of each.

use super::selection::without;
use crate::source::StreamAbout;
use crate::source::table::Row;

/// The description of a stream.
pub struct Spec {
    pub about: StreamAbout,
    /// The connection that is paged.
    pub root: &'static str,
    /// Further arguments of it.
    pub arguments: &'static str,
    /// The fields that are requested of each node.
    pub fields: &'static str,
    /// Where the records lie below a node; empty: the node is the record.
    pub inner: &'static str,
    /// The fields that identify a record.
    pub key: &'static [&'static str],
    /// Where `inner` is a connection: the query that reads a node by its id, for the rest of it.
    pub rest: Option<&'static str>,
    /// Fields of the node that each of its records gets, in an object of this name.
    pub parent: Option<(&'static str, &'static [&'static str])>,
    /// The node's field that passes are cut by; empty: the stream is read whole.
    pub stamp: &'static str,
    /// Nodes of one page, and entries of the list within each.
    pub first: u32,
    pub inner_first: u32,
    pub gone: Option<Gone>,
}

/// How deletions are found: by events, which Shopify keeps for a year.
pub struct Gone {
    /// The type of what was deleted.
    pub subject: &'static str,
    /// Where a record names it; empty: it is the record itself.
    pub field: &'static str,
}

const ORDER: &str = "id legacyResourceId name createdAt updatedAt processedAt cancelledAt cancelReason closedAt test \
    displayFinancialStatus displayFulfillmentStatus currencyCode presentmentCurrencyCode taxesIncluded edited sourceName \
    customer { id } retailLocation { id name } discountCodes \
    totalPriceSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    currentTotalPriceSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    subtotalPriceSet { shopMoney { amount currencyCode } } \
    totalTaxSet { shopMoney { amount currencyCode } } \
    totalDiscountsSet { shopMoney { amount currencyCode } } \
    cartDiscountAmountSet { shopMoney { amount currencyCode } } \
    totalShippingPriceSet { shopMoney { amount currencyCode } } \
    totalRefundedSet { shopMoney { amount currencyCode } } \
    netPaymentSet { shopMoney { amount currencyCode } } \
    shippingLine { title code originalPriceSet { shopMoney { amount currencyCode } } discountedPriceSet { shopMoney { amount currencyCode } } } \
    taxLines { title rate priceSet { shopMoney { amount currencyCode } } }";

const REFUND: &str = "updatedAt refunds { id createdAt updatedAt \
    totalRefundedSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    order { id name test cancelledAt } }";

/// What the parts of an order say of it.
const OF_ORDER: (&str, &[&str]) = (
    "order",
    &[
        "id",
        "name",
        "createdAt",
        "processedAt",
        "cancelledAt",
        "test",
        "customer",
    ],
);

const LINES: &str = "id updatedAt name createdAt processedAt cancelledAt test customer { id } \
    lineItems(PAGE) { nodes { id sku title quantity currentQuantity \
    originalUnitPriceSet { shopMoney { amount currencyCode } } \
    discountedTotalSet { shopMoney { amount currencyCode } } \
    totalDiscountSet { shopMoney { amount currencyCode } } \
    taxLines { title rate priceSet { shopMoney { amount currencyCode } } } \
    variant { id } product { id } } pageInfo { hasNextPage endCursor } }";

const SHIPPING: &str = "id updatedAt name createdAt processedAt cancelledAt test customer { id } \
    shippingLines(PAGE) { nodes { id title code source carrierIdentifier \
    originalPriceSet { shopMoney { amount currencyCode } } \
    discountedPriceSet { shopMoney { amount currencyCode } } \
    taxLines { title rate priceSet { shopMoney { amount currencyCode } } } } pageInfo { hasNextPage endCursor } }";

const DISCOUNTS: &str = "id updatedAt name createdAt processedAt cancelledAt test customer { id } \
    discountApplications(PAGE) { nodes { __typename index allocationMethod targetSelection targetType \
    value { __typename ... on MoneyV2 { amount currencyCode } ... on PricingPercentageValue { percentage } } \
    ... on DiscountCodeApplication { code } ... on AutomaticDiscountApplication { title } \
    ... on ManualDiscountApplication { title } ... on ScriptDiscountApplication { title } } \
    pageInfo { hasNextPage endCursor } }";

const PRODUCT: &str =
    "id title productType vendor status handle tags createdAt updatedAt publishedAt totalInventory";

const VARIANT: &str = "id sku title price barcode inventoryQuantity createdAt updatedAt product { id } inventoryItem { id }";

const LEVELS: &str = "id inventoryLevels(PAGE) { nodes { id updatedAt isActive \
    quantities(names: [\"available\", \"on_hand\", \"committed\", \"incoming\", \"reserved\", \"damaged\", \"safety_stock\", \"quality_control\"]) { name quantity } \
    item { id sku tracked unitCost { amount currencyCode } } \
    location { id name } } pageInfo { hasNextPage endCursor } }";

const LOCATION: &str =
    "id name isActive createdAt updatedAt address { city provinceCode countryCode zip }";

const CUSTOMER: &str = "id legacyResourceId displayName firstName lastName state createdAt updatedAt locale tags \
    numberOfOrders amountSpent { amount currencyCode } taxExempt verifiedEmail \
    defaultEmailAddress { emailAddress marketingState } defaultPhoneNumber { phoneNumber } \
    defaultAddress { city provinceCode countryCodeV2 zip }";

/// Fields that are there from a version on, by their place below a node.
const SINCE: &[(&[&str], &str)] = &[(&["inventoryLevels", "nodes", "isActive"], "2026-04")];

const fn spec(name: &'static str, root: &'static str, fields: &'static str) -> Spec {
    Spec {
        about: StreamAbout {
            name,
            default: false,
        },
        root,
        arguments: "",
        fields,
        inner: "",
        key: &["id"],
        rest: None,
        parent: None,
        stamp: "",
        first: 100,
        inner_first: 10,
        gone: None,
    }
}

/// A stream in the order of its changes.
const fn changes(name: &'static str, root: &'static str, fields: &'static str) -> Spec {
    Spec {
        arguments: ", sortKey: UPDATED_AT",
        stamp: "updatedAt",
        ..spec(name, root, fields)
    }
}

/// A list within each order, which has pages of its own.
const fn parts(name: &'static str, fields: &'static str, inner: &'static str) -> Spec {
    Spec {
        inner,
        rest: Some("order"),
        parent: Some(OF_ORDER),
        first: 20,
        gone: Some(Gone {
            subject: "ORDER",
            field: "order.id",
        }),
        ..changes(name, "orders", fields)
    }
}

const fn by_default(spec: Spec) -> Spec {
    let about = StreamAbout {
        default: true,
        ..spec.about
    };
    Spec { about, ..spec }
}

const SPECS: &[Spec] = &[
    by_default(Spec {
        first: 50,
        gone: Some(Gone {
            subject: "ORDER",
            field: "",
        }),
        ..changes("orders", "orders", ORDER)
    }),
    by_default(Spec {
        inner: "refunds",
        first: 50,
        gone: Some(Gone {
            subject: "ORDER",
            field: "order.id",
        }),
        ..changes("refunds", "orders", REFUND)
    }),
    Spec {
        inner_first: 20,
        ..parts("line_items", LINES, "lineItems.nodes")
    },
    parts("shipping_lines", SHIPPING, "shippingLines.nodes"),
    Spec {
        key: &["order.id", "index"],
        ..parts("discounts", DISCOUNTS, "discountApplications.nodes")
    },
    by_default(Spec {
        gone: Some(Gone {
            subject: "PRODUCT",
            field: "",
        }),
        ..changes("products", "products", PRODUCT)
    }),
    spec("product_variants", "productVariants", VARIANT),
    by_default(Spec {
        inner: "inventoryLevels.nodes",
        rest: Some("inventoryItem"),
        first: 20,
        ..spec("inventory_levels", "inventoryItems", LEVELS)
    }),
    by_default(Spec {
        arguments: ", includeInactive: true",
        ..spec("locations", "locations", LOCATION)
    }),
    Spec {
        gone: Some(Gone {
            subject: "CUSTOMER",
            field: "",
        }),
        ..changes("customers", "customers", CUSTOMER)
    },
];

impl Row for Spec {
    const ROWS: &'static [Spec] = SPECS;

    fn about(&self) -> StreamAbout {
        self.about
    }

    // The rest of an inner list comes after the node that follows it in the vendor's order.
    fn ordered(&self) -> bool {
        self.rest.is_none() && !self.stamp.is_empty()
    }

    fn whole(&self) -> bool {
        self.stamp.is_empty()
    }

    fn optional(&self) -> bool {
        !matches!(self.about.name, "orders" | "refunds")
    }
}

/// Which fields are asked for.
#[derive(Clone, Copy)]
pub struct Asks<'a> {
    pub version: &'a str,
    /// Fields that may not be read, by their place below a node, with dots between names.
    pub without: &'a [String],
}

impl Spec {
    /// The fields of a node. `page` says which part of the list within it.
    fn fields(&self, asks: Asks, page: &str) -> String {
        let mut fields = self.fields.replace("PAGE", page);
        let newer = SINCE.iter().filter(|(_, since)| asks.version < *since);
        for (path, _) in newer {
            fields = without(&fields, path).unwrap_or(fields);
        }
        for path in asks.without {
            let path: Vec<&str> = path.split('.').collect();
            fields = without(&fields, &path).unwrap_or(fields);
        }
        fields
    }

    /// Whether a field is asked for, and the stream can be read without it.
    pub fn can_do_without(&self, asks: Asks, path: &str) -> bool {
        let needed = [
            "id",
            "key",
            "index",
            self.stamp,
            "nodes",
            "pageInfo",
            "hasNextPage",
            "endCursor",
        ];
        let path: Vec<&str> = path.split('.').collect();
        let is_list = |name: &&str| self.inner.split('.').next() == Some(*name) && path.len() == 1;
        let last = path.last();
        let is_needed = last.is_none_or(|last| needed.contains(last) || is_list(last));
        !is_needed && without(&self.fields(asks, "first: 1"), &path).is_some()
    }

    pub fn query(&self, asks: Asks) -> String {
        let fields = self.fields(asks, &format!("first: {}", self.inner_first));
        let filter = if self.stamp.is_empty() {
            ""
        } else {
            ", query: $query"
        };
        let variable = if self.stamp.is_empty() {
            ""
        } else {
            ", $query: String"
        };
        format!(
            "query ($first: Int!, $after: String{variable}) {{ {}(first: $first, after: $after{filter}{}) {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}",
            self.root, self.arguments
        )
    }

    /// The same nodes for a bulk operation, which takes no variables, and knows lists as edges only.
    pub fn bulk_query(&self, filter: &str, asks: Asks) -> String {
        let filter = match self.stamp {
            "" => String::new(),
            _ => format!("(query: \"{filter}\")"),
        };
        format!(
            "{{ {}{filter} {{ edges {{ node {{ {} }} }} }} }}",
            self.root,
            self.fields(asks, "")
        )
    }

    /// A node by its id, with the rest of the list within it.
    pub fn rest_query(&self, root: &str, asks: Asks) -> String {
        let fields = self.fields(asks, "first: $first, after: $after");
        format!(
            "query ($id: ID!, $first: Int!, $after: String) {{ {root}(id: $id) {{ {fields} }} }}"
        )
    }
}

/// What was deleted.
pub const DELETIONS: &str = "query ($first: Int!, $after: String, $query: String) { events(first: $first, after: $after, query: $query, sortKey: CREATED_AT) { nodes { id action createdAt ... on BasicEvent { subjectId subjectType } } pageInfo { hasNextPage endCursor } } }";
