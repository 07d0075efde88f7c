//! What pg_stat_activity shows of our processes: what an open transaction does, and between transactions the state of the
//! process. Of tenants it shows only ids.

use std::cell::RefCell;
use std::ffi::CString;

use pgrx::pg_sys;

thread_local! {
    static SHOWN: RefCell<Shown> = RefCell::default();
}

#[derive(Default)]
struct Shown {
    doing: CString,
    idle: CString,
}

/// While this value lives, transactions are shown with its text. Dropping it restores the text before.
pub struct Doing {
    before: CString,
}

/// Sets what transactions are shown to do from now on, such as "storing 3 pages".
pub fn doing(text: impl Into<Vec<u8>>) -> Doing {
    let text = CString::new(text).unwrap_or_default();
    let before = SHOWN.with_borrow_mut(|shown| std::mem::replace(&mut shown.doing, text));
    Doing { before }
}

impl Drop for Doing {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.before);
        SHOWN.with_borrow_mut(|shown| shown.doing = before);
    }
}

/// Sets and shows the state of the process while no transaction is open.
pub fn idle(text: impl Into<Vec<u8>>) {
    let text = CString::new(text).unwrap_or_default();
    SHOWN.with_borrow_mut(|shown| shown.idle = text);
    end();
}

/// Shows that a transaction begins.
pub fn begin() {
    SHOWN.with_borrow(|shown| report(pg_sys::BackendState::STATE_RUNNING, &shown.doing));
}

/// Shows that no transaction is open.
pub fn end() {
    SHOWN.with_borrow(|shown| report(pg_sys::BackendState::STATE_IDLE, &shown.idle));
}

fn report(state: pg_sys::BackendState::Type, text: &CString) {
    // SAFETY: the main thread; the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}
