//! A message, or what a store keeps, and how it is read.

use std::fmt::Debug;

use peer_exchange::message::{Request, Response};
use peer_table::floors::{Floors, FloorsState};
use peer_table::{Entry, Opening};
use prost::Message;

/// A field that no release has: number 2047, with one byte in it.
const FROM_LATER: [u8; 4] = [0xfa, 0x7f, 1, 42];

/// Reads bytes back to what they were made of: what is otherwise, if anything.
type Reads = Box<dyn Fn(&[u8]) -> Result<(), String>>;

/// One thing that is recorded.
pub(crate) struct Case {
    /// The name of its file, without what that ends in.
    pub(crate) name: String,
    /// Its bytes, as this build writes them.
    pub(crate) written: Vec<u8>,
    /// Whether it is a message, in which a field of a later release is skipped, and whether its length
    /// stands before it.
    form: Form,
    reads: Reads,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Form {
    /// A message behind its length, as between pods.
    Framed,
    /// A message.
    Message,
    /// Bytes of a fixed layout.
    Layout,
}

/// Whether two values are the same.
fn same<T: PartialEq + Debug>(read: &T, wanted: &T) -> Result<(), String> {
    let told = || format!("reads as {read:?}, and was {wanted:?}");
    if read == wanted { Ok(()) } else { Err(told()) }
}

impl Case {
    /// A request of one pod to another.
    pub(crate) fn request(name: &str, value: Request) -> Self {
        Self {
            name: format!("request-{name}"),
            written: value.to_bytes(),
            form: Form::Framed,
            reads: Box::new(move |bytes| {
                same(
                    &Request::from_bytes(bytes).map_err(|error| error.to_string())?,
                    &value,
                )
            }),
        }
    }

    /// The answer of one pod to another.
    pub(crate) fn response(name: &str, value: Response) -> Self {
        Self {
            name: format!("response-{name}"),
            written: value.to_bytes(),
            form: Form::Framed,
            reads: Box::new(move |bytes| {
                same(
                    &Response::from_bytes(bytes).map_err(|error| error.to_string())?,
                    &value,
                )
            }),
        }
    }

    /// A message.
    pub(crate) fn message<M>(name: &str, value: &M) -> Self
    where
        M: Message + Default + Clone + PartialEq + Debug + 'static,
    {
        let value = value.clone();
        Self {
            name: name.to_owned(),
            written: value.encode_to_vec(),
            form: Form::Message,
            reads: Box::new(move |bytes| {
                same(
                    &M::decode(bytes).map_err(|error| error.to_string())?,
                    &value,
                )
            }),
        }
    }

    /// A record, as a store keeps it.
    pub(crate) fn entry(name: &str, value: &Entry) -> Self {
        let value = value.clone();
        Self {
            name: name.to_owned(),
            written: value.to_stored(),
            form: Form::Layout,
            reads: Box::new(move |bytes| {
                same(
                    &Entry::from_stored(bytes).map_err(|error| error.to_string())?,
                    &value,
                )
            }),
        }
    }

    /// Floors, as a store keeps them.
    pub(crate) fn floors(name: &str, value: FloorsState) -> Self {
        let opening = Opening {
            origin: peer_table::OriginId::from_slice(&value.own).unwrap(),
            ..super::opening()
        };
        Self {
            name: name.to_owned(),
            written: value.encode_to_vec(),
            form: Form::Message,
            reads: Box::new(move |bytes| {
                let floors = Floors::opened(bytes, &opening, peer_table::WallTime::default());
                same(
                    &FloorsState::from(&floors.map_err(|error| error.to_string())?),
                    &value,
                )
            }),
        }
    }

    /// What follows from records, in every build alike.
    pub(crate) fn derived(name: &str, value: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            written: value.clone(),
            form: Form::Layout,
            reads: Box::new(move |bytes| same(&bytes.to_vec(), &value)),
        }
    }

    /// Whether recorded bytes read as what they were made of.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<(), String> {
        (self.reads)(bytes)
    }

    /// The same bytes as a later release might write them, with a field that none has yet; `None` where
    /// there are no fields.
    pub(crate) fn as_later_reads(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self.form {
            Form::Layout => None,
            Form::Message => Some([bytes, &FROM_LATER].concat()),
            Form::Framed => {
                let mut message = bytes;
                prost::decode_length_delimiter(&mut message).unwrap();
                let message = [message, &FROM_LATER].concat();
                let mut framed = Vec::new();
                prost::encode_length_delimiter(message.len(), &mut framed).unwrap();
                framed.extend(message);
                Some(framed)
            }
        }
    }
}
