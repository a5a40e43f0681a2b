//! The replies to a pipeline, one after the other.

use redis::Value;

use super::fault::{Fault, odd};

/// Replies that are still to be looked at, in the order of their commands.
#[derive(Debug)]
pub(super) struct Replies(std::vec::IntoIter<Value>);

/// What became of a transaction.
#[derive(Debug)]
pub(super) enum Executed {
    /// All of it was done; the results of its commands.
    Done(Vec<Value>),
    /// Nothing of it was done: a key that was watched had changed.
    Disturbed,
}

impl Replies {
    pub(super) fn new(replies: Vec<Value>) -> Self {
        Self(replies.into_iter())
    }

    /// The next reply, which is no error.
    pub(super) fn next(&mut self) -> Result<Value, Fault> {
        match self.0.next() {
            Some(Value::ServerError(error)) => Err((&error).into()),
            Some(value) => Ok(value),
            None => Err(odd("a command")),
        }
    }

    /// The next reply: a value, or none.
    pub(super) fn value(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        bytes(self.next()?)
    }

    /// The next reply: so many values, each of which may be missing.
    pub(super) fn values<const N: usize>(&mut self) -> Result<[Option<Vec<u8>>; N], Fault> {
        let Value::Array(values) = self.next()? else {
            return Err(odd("HMGET"));
        };
        let values = values
            .into_iter()
            .map(bytes)
            .collect::<Result<Vec<_>, _>>()?;
        values.try_into().map_err(|_| odd("HMGET"))
    }

    /// The next reply: a number.
    pub(super) fn number(&mut self) -> Result<u64, Fault> {
        match self.next()? {
            Value::Int(number) => u64::try_from(number).map_err(|_| odd("a command")),
            _ => Err(odd("a command")),
        }
    }

    /// The replies to MULTI, to `commands` commands, and to EXEC.
    pub(super) fn executed(&mut self, commands: usize) -> Result<Executed, Fault> {
        let mut refused = None;
        for _ in 0..=commands {
            if let Err(fault) = self.next() {
                refused.get_or_insert(fault);
            }
        }
        match (self.next(), refused) {
            // What EXEC says then is only that something before it was refused.
            (Err(_), Some(refused)) => Err(refused),
            (Err(fault), None) => Err(fault),
            (Ok(Value::Array(results)), None) => Ok(Executed::Done(results)),
            (Ok(Value::Nil), None) => Ok(Executed::Disturbed),
            (Ok(_), _) => Err(odd("EXEC")),
        }
    }
}

fn bytes(value: Value) -> Result<Option<Vec<u8>>, Fault> {
    match value {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::SimpleString(text) => Ok(Some(text.into_bytes())),
        Value::Okay => Ok(Some(b"OK".to_vec())),
        _ => Err(odd("a command")),
    }
}
