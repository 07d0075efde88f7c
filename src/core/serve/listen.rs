//! A server: its socket, its threads, and the queue to the main thread.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::connection::{self, Standing};
use super::shared::{Shared, Wake};
use super::{Asked, Identity, Settings};
use crate::threads;

/// Requests that wait for the main thread. More: those behind wait longer before they are told to come back. Fewer: a
/// burst that could be answered is turned away.
const QUEUE: usize = 256;

/// Bytes that are in memory at once, in units of 1 KiB: of bodies that nobody has authenticated yet, of files, and of answers
/// that are being sent. Each of them may take as much again for a moment, where it grows or is written.
const BODIES_KB: usize = 32 * 1024;
const UPLOADS_KB: usize = 128 * 1024;
const ANSWERS_KB: usize = 128 * 1024;

/// Pause after the system gave no connection, for lack of descriptors, say.
const AFTER_TROUBLE: Duration = Duration::from_millis(100);

/// A listening server; it ends with the value.
pub struct Server {
    runtime: Option<Runtime>,
    asked: mpsc::Receiver<Asked>,
    pushed: mpsc::Receiver<Asked>,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens, or says why it cannot. `wake` is called whenever something was asked.
    pub fn start(settings: Settings, wake: Wake) -> std::io::Result<Server> {
        let listener = TcpListener::bind(settings.address)?;
        listener.set_nonblocking(true)?;
        let runtime = threads::runtime("connector_serve")?;
        let (queue, asked) = mpsc::channel(QUEUE);
        let (push, pushed) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            identity: watch::Sender::new(settings.identity.clone()),
            settings,
            queue,
            pushed: push,
            wake,
            bodies: Arc::new(Semaphore::new(BODIES_KB)),
            uploads: Arc::new(Semaphore::new(UPLOADS_KB)),
            answers: Arc::new(Semaphore::new(ANSWERS_KB)),
            open: AtomicUsize::new(0),
        });
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(accept(listener, shared.clone()));
        Ok(Server {
            runtime: Some(runtime),
            asked,
            pushed,
            shared,
        })
    }

    /// The next request that waits for its answer, webhooks excepted.
    pub fn try_next(&mut self) -> Option<Asked> {
        self.asked.try_recv().ok()
    }

    /// The next webhook that waits for its answer.
    pub fn try_next_pushed(&mut self) -> Option<Asked> {
        self.pushed.try_recv().ok()
    }

    /// New connections use this certificate from now on.
    pub fn identify(&self, identity: Option<Arc<Identity>>) {
        self.shared.identity.send_replace(identity);
    }

    /// Waits until the finished answers are sent, but not longer than `longest`.
    pub fn finish(&mut self, longest: Duration) {
        self.asked.close();
        self.pushed.close();
        while let Some(asked) = self.try_next().or_else(|| self.try_next_pushed()) {
            asked.answer(super::Answer::busy(1));
        }
        let deadline = Instant::now() + longest;
        while self.shared.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An open connection.
struct Place {
    task: AbortHandle,
    at: Arc<Standing>,
}

/// Where connections are that give way to one that comes, the first of them first: those that have said nothing yet, those
/// that were answered and say no more, and those whose body is long in coming.
const GIVE_WAY: [u8; 3] = [
    connection::SILENT,
    connection::ANSWERED,
    connection::SENDING,
];

/// How long a connection has for what gives way, before it does. Longer: where all places are taken, who comes waits
/// longer. Shorter: who is about to say something is cut off.
const PATIENCE: Duration = Duration::from_millis(50);

/// Ends a connection that gives way, if there is one.
fn make_room(places: &mut VecDeque<Place>) {
    let idle = GIVE_WAY.into_iter().find_map(|at| {
        let is_idle = |place: &Place| place.at.is(at) && place.at.since() >= PATIENCE;
        places.iter().position(is_idle)
    });
    if let Some(place) = idle.and_then(|idle| places.remove(idle)) {
        place.task.abort();
    }
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let free = Arc::new(Semaphore::new(shared.settings.connections));
    let mut places: VecDeque<Place> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(AFTER_TROUBLE).await;
            continue;
        };
        places.retain(|place| !place.task.is_finished());
        let permit = loop {
            if free.available_permits() == 0 {
                make_room(&mut places);
            }
            match timeout(PATIENCE, free.clone().acquire_owned()).await {
                Ok(Ok(permit)) => break permit,
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        };
        let at = Arc::new(Standing::new());
        let (shared, its) = (shared.clone(), at.clone());
        let task = tokio::spawn(async move {
            connection::serve(stream, shared, its).await;
            drop(permit);
        });
        let task = task.abort_handle();
        places.push_back(Place { task, at });
    }
}
