//! Waiting for what a cluster makes true in its own time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::interrupt;

/// Between two looks. A look is a request or a program, which takes as long.
const PAUSE: Duration = Duration::from_millis(150);

/// Looks until `look` succeeds, and gives what it gave. After `limit` the error says what was
/// waited for, and what the last look said.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(error) if started.elapsed() > limit => {
                return Err(error)
                    .with_context(|| format!("{what}: not within {} s", limit.as_secs()));
            }
            Err(_) => {}
        }
        interrupt::check()?;
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn it_looks_until_it_is_so_and_tells_what_it_saw_last() {
        let mut looks = 0;
        let seen = until("three looks", Duration::from_mins(1), || {
            looks += 1;
            if looks < 3 {
                bail!("only {looks}");
            }
            Ok(looks)
        });
        assert_eq!(seen.unwrap(), 3);
        let never = until("never", Duration::ZERO, || -> Result<()> {
            bail!("no luck")
        });
        let error = format!("{:#}", never.unwrap_err());
        assert!(
            error.contains("never") && error.contains("no luck"),
            "{error}"
        );
    }
}
