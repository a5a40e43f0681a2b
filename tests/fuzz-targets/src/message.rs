//! What two syncs say to each other.

use bytes::Bytes;
use peer_exchange::handshake::Refusal;
use peer_exchange::message::{
    Answer, Ask, DETAIL_BYTES_MAX, Request, Response, batch_from_bytes, batch_to_bytes,
};
use peer_table::contract::{
    BATCH_RECORDS_MAX, Batch, InvalidMessage, fingerprints_from_bytes, fingerprints_to_bytes,
};
use peer_table::floors::{Replicas, WirePublication};
use peer_table::{Entry, Key, TableName, peers};

/// What an error may say of foreign bytes, in bytes: it never repeats them at length.
const SAID_BYTES_MAX: usize = 512;

fn is_brief(error: &impl std::fmt::Display) {
    let said = error.to_string();
    assert!(!said.is_empty(), "a refusal without a word");
    assert!(said.len() <= SAID_BYTES_MAX, "{said}");
}

/// A request, and the batch in it.
pub(crate) fn request(bytes: &[u8]) {
    let request = match Request::from_bytes(bytes) {
        Ok(request) => request,
        Err(unreadable) => return is_brief(&unreadable),
    };
    assert_eq!(
        Request::from_bytes(&request.to_bytes()),
        Ok(request.clone())
    );
    match &request.ask {
        Some(Ask::Swap(swap)) => {
            records(&swap.batch);
            match fingerprints_from_bytes(&swap.want) {
                Ok(want) => assert_eq!(fingerprints_to_bytes(want), swap.want),
                Err(invalid) => is_named(&invalid),
            }
        }
        Some(Ask::Push(push)) => {
            records(&push.batch);
            push.replicas.iter().for_each(are_told);
        }
        Some(Ask::Replicas(replicas)) => are_told(replicas),
        _ => {}
    }
}

/// A response, and the batch in it.
pub(crate) fn response(bytes: &[u8]) {
    let response = match Response::from_bytes(bytes) {
        Ok(response) => response,
        Err(unreadable) => return is_brief(&unreadable),
    };
    assert_eq!(
        Response::from_bytes(&response.to_bytes()),
        Ok(response.clone())
    );
    match &response.answer {
        Some(Answer::Swapped(swapped)) => {
            records(&swapped.batch);
            records(&swapped.answers);
        }
        Some(Answer::Replicas(replicas)) => are_told(replicas),
        Some(Answer::Refused(refused)) => {
            let refusal = Refusal::from_wire(refused);
            assert!(refusal.detail.len() <= DETAIL_BYTES_MAX);
            assert!(!refusal.detail.contains(char::is_control));
            assert_eq!(Refusal::from_wire(&refusal.to_wire()), refusal);
        }
        _ => {}
    }
}

/// What is told of replicas: all of it can be read, or what is wrong is named.
fn are_told(replicas: &Replicas) {
    match replicas.check() {
        Ok(()) => {
            let publications = replicas.publications().expect("they were checked");
            let again = publications.iter().map(WirePublication::from);
            for (again, publication) in again.zip(&publications) {
                assert_eq!(again.read().as_ref(), Ok(publication));
            }
        }
        Err(invalid) => is_named(&invalid),
    }
}

/// A batch by itself.
pub(crate) fn batch(bytes: &[u8]) {
    records(&Bytes::copy_from_slice(bytes));
}

fn records(bytes: &Bytes) {
    let table = peers::table_name();
    let batch = match batch_from_bytes(bytes, &table) {
        Ok(Some(batch)) => batch,
        Ok(None) => return,
        Err(invalid) => return is_named(&invalid),
    };
    assert!((1..=BATCH_RECORDS_MAX).contains(&batch.records.len()));
    let again = batch_from_bytes(&batch_to_bytes(&batch), &table);
    assert_eq!(again, Ok(Some(batch.clone())));
    match batch.into_records() {
        Ok(records) => are_sent_again(&table, records),
        Err(invalid) => is_named(&invalid),
    }
}

fn are_sent_again(table: &TableName, records: Vec<(Key, Entry)>) {
    let batch = Batch::new(table, records.iter().cloned());
    let read = batch_from_bytes(&batch_to_bytes(&batch), table);
    let read = read.ok().flatten().map(Batch::into_records);
    assert_eq!(read, Some(Ok(records)));
}

pub(crate) fn is_named(invalid: &InvalidMessage) {
    is_brief(invalid);
    if let InvalidMessage::Field { field, .. } = invalid {
        assert!(!field.is_empty());
    }
}
