//! What a thread holds of memory, counted by the allocator of the tests.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

pub fn took(bytes: usize) {
    // A thread that ends gives memory back when it counts no more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes as isize);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

pub fn gave(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get() - bytes as isize));
}

/// The most bytes that were held at once beyond those before.
pub fn peak<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    MOST.set(before);
    let result = act();
    ((MOST.get() - before).max(0) as usize, result)
}

/// Does it with no more than so many bytes.
pub fn within<T>(most: usize, act: impl FnOnce() -> T) -> T {
    let (peak, result) = peak(act);
    assert!(
        peak <= most,
        "{peak} bytes were held, where {most} are enough"
    );
    result
}

#[test]
fn allocated_memory_is_counted() {
    let (peak, kept) = peak(|| {
        drop(vec![0_u8; 5_000_000]);
        vec![0_u8; 1_000_000]
    });
    assert!((5_000_000..5_100_000).contains(&peak), "{peak}");
    drop(kept);
}
