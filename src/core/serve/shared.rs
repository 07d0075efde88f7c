//! What all connections of a server have in common.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{Semaphore, mpsc, watch};

use super::{Asked, Identity, Settings};

/// Called on a network thread whenever something was asked.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

pub struct Shared {
    pub settings: Settings,
    /// The identity of `settings`, which may be renewed.
    pub identity: watch::Sender<Option<Arc<Identity>>>,
    pub queue: mpsc::Sender<Asked>,
    /// The queue of webhooks, which wait for no read.
    pub pushed: mpsc::Sender<Asked>,
    pub wake: Wake,
    pub bodies: Arc<Semaphore>,
    pub uploads: Arc<Semaphore>,
    pub answers: Arc<Semaphore>,
    /// Requests whose answer is not sent yet.
    pub open: AtomicUsize,
}
