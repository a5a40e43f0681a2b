//! A file that a verb writes: it is whole, or it is not there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::interrupt;
use super::output::cell;

/// A file that gets its name only when it is whole, and is removed otherwise.
pub(crate) struct Target {
    /// Where it is written to.
    pub(crate) file: File,
    name: PathBuf,
    /// Under which name it is written; none for a pipe or a device, which cannot be renamed to.
    partial: Option<PathBuf>,
}

impl Target {
    /// Begins it.
    pub(crate) fn open(name: &Path) -> Result<Self, Failure> {
        // What a symbolic link points to is written, not the link.
        let name = fs::canonicalize(name).unwrap_or_else(|_| name.to_path_buf());
        if fs::metadata(&name).is_ok_and(|found| !found.is_file()) {
            let file = File::options().write(true).open(&name);
            let file = file.map_err(|error| cannot_write(&name, &error))?;
            return Ok(Self {
                file,
                name,
                partial: None,
            });
        }
        let Some(base) = name.file_name() else {
            return Err(cannot_write(
                &name,
                &io::Error::other("this is no name of a file"),
            ));
        };
        let partial = name.with_file_name(format!(
            "{}.{}.part",
            base.to_string_lossy(),
            std::process::id()
        ));
        interrupt::set_partial(Some(&partial));
        let file = File::create(&partial).map_err(|error| cannot_write(&partial, &error))?;
        Ok(Self {
            file,
            name,
            partial: Some(partial),
        })
    }

    /// Gives it its name.
    pub(crate) fn keep(mut self) -> Result<(), Failure> {
        let Some(partial) = self.partial.take() else {
            return Ok(());
        };
        let kept = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&partial, &self.name));
        interrupt::set_partial(None);
        kept.map_err(|error| {
            let _ = fs::remove_file(&partial);
            self.failure(&error)
        })
    }

    /// An error of the output, with the name of this file.
    pub(crate) fn name_it(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Output(error) => self.failure(&error),
            other => other,
        }
    }

    /// That it cannot be written.
    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        cannot_write(&self.name, error)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = fs::remove_file(partial);
            interrupt::set_partial(None);
        }
    }
}

fn cannot_write(name: &Path, error: &io::Error) -> Failure {
    Failure::Input(format!(
        "cannot write {}: {error}.",
        cell(&name.to_string_lossy())
    ))
}
