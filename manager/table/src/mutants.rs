//! Mistakes on purpose, by name, so that the simulator can show that it finds them.
//!
//! Only a build with `--cfg udht_mutants` has any, and nothing is shipped that was built so. In every
//! other build [`is`] is `false` as it is compiled, and nothing of a mistake is in the program.

#[cfg(udht_mutants)]
thread_local! {
    static CHOSEN: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Whether this mistake is to be made.
#[cfg(udht_mutants)]
pub fn is(name: &str) -> bool {
    CHOSEN.get() == name
}

/// Whether this mistake is to be made: no.
#[cfg(not(udht_mutants))]
#[inline]
pub const fn is(_: &str) -> bool {
    false
}

/// Has this thread make this mistake from now on; none by the name of `""`.
#[cfg(udht_mutants)]
pub fn choose(name: &'static str) {
    CHOSEN.set(name);
}
