//! Vendors that pages read from. A test cannot have a certificate that the system's trust roots know, so the scheme and
//! the host of a page (`https://shop.example.com`) are replaced by the fake's in what runs, and put back in what comes.
//! Nothing else of a block is changed.

use connector_service_test::{Asked, Reply, Vendor};
use serde_json::{Value, json};

use std::path::Path;
use std::time::Duration;

pub struct Fake {
    /// Scheme and host as the page writes them.
    pub url: String,
    pub vendor: Vendor,
}

/// Starts the vendor that `<!-- vendor: name -->` asks for: one of those below, or `pg_test/docs/name.json`.
pub fn start(name: &str) -> Fake {
    if name == "dummyjson" {
        return Fake {
            url: "https://dummyjson.com".into(),
            vendor: Vendor::start(dummyjson),
        };
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/{name}.json"));
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("vendor {name}: {}: {error}", file.display()));
    let script: Value = serde_json::from_str(&text).unwrap();
    let url = script["url"].as_str().unwrap().to_owned();
    let vendor = Vendor::start(move |asked| scripted(&script, asked));
    Fake { url, vendor }
}

/// `{"url": "https://shop.example.com", "answers": [{"path": "/orders", "query": {"page": "2"}, "answer": {...}}]}`:
/// the first answer whose path, method and query, as far as it names them, are those of the request. `status` and
/// `headers` may stand beside `answer`.
fn scripted(script: &Value, asked: &Asked) -> Reply {
    let answers = script["answers"].as_array().unwrap();
    let fits = |answer: &&Value| {
        let query = answer["query"].as_object();
        let method = answer["method"].as_str().unwrap_or(&asked.method);
        answer["path"] == json!(asked.path)
            && method == asked.method
            && query.is_none_or(|query| {
                query.iter().all(|(name, value)| {
                    asked.query.get(name).map(String::as_str) == value.as_str()
                })
            })
    };
    let Some(answer) = answers.iter().find(fits) else {
        return Reply::status(404);
    };
    let mut headers = vec![("Content-Type", "application/json".to_owned())];
    for (name, value) in answer["headers"].as_object().into_iter().flatten() {
        // A fake lives as long as the test.
        headers.push((name.clone().leak(), value.as_str().unwrap().to_owned()));
    }
    Reply::Full {
        status: answer["status"].as_u64().unwrap_or(200) as u16,
        headers,
        body: answer["answer"].to_string().into_bytes(),
    }
}

/// Categories of the public API at https://dummyjson.com/products, with their number of products, in its order.
const CATEGORIES: [(&str, usize); 24] = [
    ("beauty", 5),
    ("fragrances", 5),
    ("furniture", 5),
    ("groceries", 27),
    ("home-decoration", 5),
    ("kitchen-accessories", 30),
    ("laptops", 5),
    ("mens-shirts", 5),
    ("mens-shoes", 5),
    ("mens-watches", 6),
    ("mobile-accessories", 14),
    ("motorcycle", 5),
    ("skin-care", 3),
    ("smartphones", 16),
    ("sports-accessories", 17),
    ("sunglasses", 5),
    ("tablets", 3),
    ("tops", 5),
    ("vehicle", 5),
    ("womens-bags", 5),
    ("womens-dresses", 5),
    ("womens-jewellery", 3),
    ("womens-shoes", 5),
    ("womens-watches", 5),
];

/// The titles and prices that pages show.
const FIRST: [(&str, &str); 3] = [
    ("Essence Mascara Lash Princess", "9.99"),
    ("Eyeshadow Palette with Mirror", "19.99"),
    ("Powder Canister", "14.99"),
];

/// Answers in the shape of https://dummyjson.com/docs/products: `limit` products from `skip` on, and their total number.
fn dummyjson(asked: &Asked) -> Reply {
    if asked.path != "/products" {
        return Reply::status(404);
    }
    let categories: Vec<&str> = CATEGORIES
        .iter()
        .flat_map(|(name, count)| std::iter::repeat_n(*name, *count))
        .collect();
    let (skip, limit) = (asked.number("skip"), asked.number("limit"));
    let limit = if limit == 0 { 30 } else { limit };
    let product = |(at, category): (usize, &&str)| {
        let title = FIRST.get(at).map_or("Another product", |first| first.0);
        let price = FIRST.get(at).map_or("1.00", |first| first.1);
        format!(
            r#"{{"id": {}, "title": "{title}", "category": "{category}", "price": {price}}}"#,
            at + 1
        )
    };
    let products: Vec<String> = categories
        .iter()
        .enumerate()
        .skip(skip)
        .take(limit)
        .map(product)
        .collect();
    let page = Reply::Json(format!(
        r#"{{"products": [{}], "total": {}, "skip": {skip}, "limit": {}}}"#,
        products.join(", "),
        categories.len(),
        products.len()
    ));
    // As if it were far away: a page that creates a connector, and asks for a sync in the next statement, waits for the
    // sync that is going already.
    Reply::After(Duration::from_millis(60), Box::new(page))
}
