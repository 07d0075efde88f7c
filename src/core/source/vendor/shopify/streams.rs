//! Shopify's streams, and the query of each.

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
    /// Where `inner` is a connection: what asks for the rest of it, by the node's id.
    pub rest: Option<Rest>,
    /// The node's field that passes are cut by; empty: the stream is read whole.
    pub stamp: &'static str,
    /// Nodes of one page.
    pub first: u32,
}

pub struct Rest {
    pub root: &'static str,
    pub connection: &'static str,
    pub fields: &'static str,
}

const ORDER: &str = "id legacyResourceId name createdAt updatedAt processedAt cancelledAt cancelReason closedAt test \
    displayFinancialStatus displayFulfillmentStatus currencyCode presentmentCurrencyCode taxesIncluded edited sourceName \
    retailLocation { id name } \
    totalPriceSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    currentTotalPriceSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    subtotalPriceSet { shopMoney { amount currencyCode } } \
    totalTaxSet { shopMoney { amount currencyCode } } \
    totalDiscountsSet { shopMoney { amount currencyCode } } \
    totalShippingPriceSet { shopMoney { amount currencyCode } } \
    totalRefundedSet { shopMoney { amount currencyCode } } \
    netPaymentSet { shopMoney { amount currencyCode } }";

const REFUND: &str = "updatedAt refunds { id createdAt updatedAt \
    totalRefundedSet { shopMoney { amount currencyCode } presentmentMoney { amount currencyCode } } \
    order { id name test cancelledAt } }";

const LINE: &str = "id sku title quantity currentQuantity \
    originalUnitPriceSet { shopMoney { amount currencyCode } } \
    discountedTotalSet { shopMoney { amount currencyCode } } \
    variant { id } product { id }";

const PRODUCT: &str =
    "id title productType vendor status handle tags createdAt updatedAt publishedAt totalInventory";

const VARIANT: &str = "id sku title price barcode inventoryQuantity createdAt updatedAt product { id } inventoryItem { id }";

const LEVEL: &str = "id updatedAt isActive \
    quantities(names: [\"available\", \"on_hand\", \"committed\", \"incoming\", \"reserved\", \"damaged\", \"safety_stock\", \"quality_control\"]) { name quantity } \
    item { id sku tracked unitCost { amount currencyCode } } \
    location { id name }";

const LOCATION: &str =
    "id name isActive createdAt updatedAt address { city provinceCode countryCode zip }";

const SPECS: &[Spec] = &[
    Spec {
        about: StreamAbout {
            name: "orders",
            default: true,
        },
        root: "orders",
        arguments: ", sortKey: UPDATED_AT",
        fields: ORDER,
        inner: "",
        rest: None,
        stamp: "updatedAt",
        first: 50,
    },
    Spec {
        about: StreamAbout {
            name: "refunds",
            default: true,
        },
        root: "orders",
        arguments: ", sortKey: UPDATED_AT",
        fields: REFUND,
        inner: "refunds",
        rest: None,
        stamp: "updatedAt",
        first: 50,
    },
    Spec {
        about: StreamAbout {
            name: "line_items",
            default: false,
        },
        root: "orders",
        arguments: ", sortKey: UPDATED_AT",
        fields: "id updatedAt lineItems(first: 20) { nodes { LINE } pageInfo { hasNextPage endCursor } }",
        inner: "lineItems.nodes",
        rest: Some(Rest {
            root: "order",
            connection: "lineItems",
            fields: LINE,
        }),
        stamp: "updatedAt",
        first: 20,
    },
    Spec {
        about: StreamAbout {
            name: "products",
            default: true,
        },
        root: "products",
        arguments: ", sortKey: UPDATED_AT",
        fields: PRODUCT,
        inner: "",
        rest: None,
        stamp: "updatedAt",
        first: 100,
    },
    Spec {
        about: StreamAbout {
            name: "product_variants",
            default: false,
        },
        root: "productVariants",
        arguments: "",
        fields: VARIANT,
        inner: "",
        rest: None,
        stamp: "",
        first: 100,
    },
    Spec {
        about: StreamAbout {
            name: "inventory_levels",
            default: true,
        },
        root: "inventoryItems",
        arguments: "",
        fields: "id inventoryLevels(first: 10) { nodes { LEVEL } pageInfo { hasNextPage endCursor } }",
        inner: "inventoryLevels.nodes",
        rest: Some(Rest {
            root: "inventoryItem",
            connection: "inventoryLevels",
            fields: LEVEL,
        }),
        stamp: "",
        first: 20,
    },
    Spec {
        about: StreamAbout {
            name: "locations",
            default: true,
        },
        root: "locations",
        arguments: ", includeInactive: true",
        fields: LOCATION,
        inner: "",
        rest: None,
        stamp: "",
        first: 100,
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

impl Spec {
    pub fn query(&self) -> String {
        let fields = self.fields.replace("LINE", LINE).replace("LEVEL", LEVEL);
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
}

impl Spec {
    /// The same nodes for a bulk operation, which takes no variables.
    pub fn bulk_query(&self, filter: &str) -> String {
        let filter = match self.stamp {
            "" => String::new(),
            _ => format!("(query: \"{filter}\")"),
        };
        format!(
            "{{ {}{filter} {{ nodes {{ {} }} }} }}",
            self.root, self.fields
        )
    }
}

impl Rest {
    pub fn query(&self) -> String {
        format!(
            "query ($id: ID!, $first: Int!, $after: String) {{ {}(id: $id) {{ id {}(first: $first, after: $after) {{ nodes {{ {} }} pageInfo {{ hasNextPage endCursor }} }} }} }}",
            self.root, self.connection, self.fields
        )
    }
}
