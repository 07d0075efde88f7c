//! The connections of a run to a database: one for each stream that is being read, and no more than the server has room for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::database::Database;

pub struct Connections {
    idle: Mutex<Vec<Database>>,
    places: Semaphore,
    /// How many places there are.
    count: AtomicUsize,
}

impl Connections {
    pub fn new(most: usize) -> Connections {
        Connections {
            idle: Mutex::default(),
            places: Semaphore::new(most),
            count: AtomicUsize::new(most),
        }
    }

    /// A place for a batch, and a connection that has nothing to do, if there is one. `None`: never.
    pub async fn take(&self) -> Option<(SemaphorePermit<'_>, Option<Database>)> {
        let place = self.places.acquire().await.ok()?;
        Some((place, self.idle().pop()))
    }

    /// Keeps a connection that is good for another batch.
    pub fn keep(&self, database: Database) {
        self.idle().push(database);
    }

    /// The server takes no further connection: there are fewer places from now on. False: it was the only one.
    pub fn give_up(&self, place: SemaphorePermit) -> bool {
        let fewer = |count: usize| (count > 1).then(|| count - 1);
        let (set, fetch) = (Ordering::SeqCst, Ordering::SeqCst);
        let is_given_up = self.count.fetch_update(set, fetch, fewer).is_ok();
        if is_given_up {
            place.forget();
        }
        is_given_up
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Database>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
