//! A server whose database `app` has a gateway.

use std::net::TcpListener;

use postgres::Client;
use ring::hmac;
use serde_json::Value;

use crate::http::{Answered, ask, try_ask};
use crate::{Cluster, wait_until};

pub const TENANT: &str = "00000000-0000-4000-8000-000000000001";
/// The secret with which the tests sign webhook events.
pub const SECRET: &str = "whsec_test_not_a_real_secret";

pub struct Gateway {
    pub cluster: Cluster,
    pub client: Client,
    pub port: u16,
}

/// A port that nobody listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

impl Gateway {
    /// Starts the server, with these settings too, and waits until the gateway listens.
    pub fn start(settings: &str) -> Gateway {
        let port = free_port();
        let cluster = Cluster::start(&format!(
            "connector_service.gateway_listen = 'app=127.0.0.1:{port}'\n{settings}"
        ));
        let client = cluster.database("app");
        wait_until(20, "the gateway listens", || {
            try_ask(port, "GET", "/live", &[], b"").filter(|answered| answered.status == 200)
        });
        Gateway {
            cluster,
            client,
            port,
        }
    }

    /// A token for one tenant, or for all.
    pub fn token(&mut self, tenant: Option<&str>, scope: &str) -> String {
        let sql = "SELECT connector_service_create_token('a test', $1::text::uuid, $2)";
        let row = self.client.query_one(sql, &[&tenant, &scope]);
        row.expect("a token").get(0)
    }

    pub fn get(&self, path: &str, token: &str) -> Answered {
        let bearer = format!("Bearer {token}");
        ask(self.port, "GET", path, &[("Authorization", &bearer)], b"")
    }

    pub fn post(&self, path: &str, token: &str, body: &str) -> Answered {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        ask(self.port, "POST", path, &headers, body.as_bytes())
    }

    pub fn count(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).expect("a count").get(0)
    }

    pub fn execute(&mut self, sql: &str) {
        self.client.batch_execute(sql).expect("statements");
    }

    /// Inserts a webhook connector and returns its id.
    pub fn webhook(&mut self, config: &Value) -> String {
        let sql = "INSERT INTO connectors (tenant_id, name, type, config, credentials)
            VALUES ($1::text::uuid, 'pushed ' || left(gen_random_uuid()::text, 8), 'webhook', $2, jsonb_build_object('secret', $3::text)) RETURNING connector_id::text";
        let row = self.client.query_one(sql, &[&TENANT, config, &SECRET]);
        row.expect("a connector").get(0)
    }

    /// Returns the process id of the gateway, if it runs.
    pub fn pid(&self) -> Option<i32> {
        let sql =
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'connector_service gateway'";
        let mut client = self.cluster.try_client("postgres").ok()?;
        let row = client.query_opt(sql, &[]).ok()?;
        row.map(|row| row.get(0))
    }
}

/// The signature of a body, in hexadecimal.
pub fn signature(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    tag.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Pushes a signed body; `None`: there was no answer.
pub fn push(port: u16, connector: &str, body: &str) -> Option<Answered> {
    let path = format!("/webhooks/{connector}");
    let headers = [("X-Signature", signature(body))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    try_ask(port, "POST", &path, &headers, body.as_bytes())
}
