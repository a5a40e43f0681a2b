//! Answers that come before the request is sent to its end: a server that has seen enough of an
//! upload says why and hangs up, and the words are worth more than the broken pipe.

use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ureq::Error;
// Not held stable by ureq from one minor release to the next: the compiler tells.
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Whether the server no longer takes what is sent to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HungUp(Arc<AtomicBool>);

impl HungUp {
    /// What is not sent yet needs no sending.
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, hung_up: bool) {
        self.0.store(hung_up, Ordering::Relaxed);
    }
}

impl<In: Transport> Connector<In> for HungUp {
    type Out = ToTheAnswer<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        self.set(false);
        Ok(chained.map(|inner| ToTheAnswer {
            inner,
            hung_up: self.clone(),
        }))
    }
}

/// A connection that goes on to the answer when the server takes no more of the request.
#[derive(Debug)]
pub(crate) struct ToTheAnswer<T> {
    inner: T,
    hung_up: HungUp,
}

impl<T: Transport> Transport for ToTheAnswer<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.hung_up.get() {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(Error::Io(error))
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset
                ) =>
            {
                self.hung_up.set(true);
                Ok(())
            }
            result => result,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
