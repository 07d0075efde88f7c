//! Resolves names to addresses and has the guard check them: the client connects to exactly these addresses.
//!
//! Every connection to a name comes through [`Resolver`], so a name that answers differently the second time is
//! judged the second time. The whole answer is refused for one address in it: the client may take any.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::{self, Allowed};

/// What looks a name up. Given from outside, so that a test can answer.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The system's resolver, on one of tokio's threads for what blocks.
pub fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            // The port is the client's to fill in.
            Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect())
        })
    })
}

pub struct Resolver {
    pub lookup: Lookup,
    pub allowed: Arc<Allowed>,
    /// Whether the client asks by http.
    pub plain: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let answer = (self.lookup)(name.as_str().to_owned());
        let (allowed, plain) = (self.allowed.clone(), self.plain);
        Box::pin(async move {
            let answer = answer.await?;
            let addresses = answer.iter().map(SocketAddr::ip);
            guard::check_answer(name.as_str(), addresses, plain, &allowed)?;
            Ok(Box::new(answer.into_iter()) as Addrs)
        })
    }
}
