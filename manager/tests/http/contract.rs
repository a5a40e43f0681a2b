//! The OpenAPI document: what it says is what the router does. Every answer that any test here gets
//! is held against it.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::support::Manager;

static DOCUMENT: OnceLock<Value> = OnceLock::new();

/// Fails if the document does not know an answer to a call that it knows.
pub fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap) {
    let Some(document) = DOCUMENT.get() else {
        return;
    };
    let paths = document["paths"].as_object().unwrap();
    let Some((template, item)) = paths.iter().find(|(template, _)| fits(template, path)) else {
        return;
    };
    let method = if method == Method::HEAD {
        "get".to_owned()
    } else {
        method.as_str().to_lowercase()
    };
    let Some(operation) = item.get(&method) else {
        return;
    };
    let responses = operation["responses"].as_object().unwrap();
    let Some(response) = responses.get(status.as_str()) else {
        panic!("{method} {template} answered {status}, of which the contract does not know");
    };
    let Some(given) = headers.get("content-type") else {
        return;
    };
    let given = given.to_str().unwrap().split(';').next().unwrap();
    let known = response["content"].as_object();
    assert!(
        known.is_some_and(|known| known.contains_key(given)),
        "{method} {template} answered {status} with {given}, of which the contract does not know"
    );
}

fn fits(template: &str, path: &str) -> bool {
    let (mut ours, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (ours.next(), given.next()) {
            (None, None) => return true,
            (Some(our), Some(given)) if our == given => {}
            (Some(our), Some(given)) if our.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

/// Reads the document, so that answers are held against it.
pub async fn load(manager: &Manager) {
    let answer = manager.get("/openapi.json").expect(200).await;
    DOCUMENT.get_or_init(|| answer.json());
}

#[tokio::test]
async fn every_route_of_the_router_is_in_the_document_and_every_one_in_it_is_routed() {
    let manager = Manager::new().await;
    let document = manager.get("/openapi.json").expect(200).await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut calls = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.replace("{peer_id}", "p").replace("{table}", "peers");
        let known: BTreeSet<_> = item.as_object().unwrap().keys().cloned().collect();
        for method in ["get", "put", "post", "patch", "delete", "options", "trace"] {
            let name = method.to_uppercase().parse().unwrap();
            let open = manager.call(name, &concrete).open().await;
            let routed = open.status != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(routed, known.contains(method), "{method} {path}");
            if routed {
                calls.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    insta::assert_snapshot!(calls.into_iter().collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(array) => array.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let manager = Manager::new().await;
    let document = manager.get("/openapi.json").expect(200).await.json();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Problem"));
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_operation_has_a_name_and_says_what_it_does_and_how_it_fails() {
    let manager = Manager::new().await;
    let mut names = BTreeSet::new();
    let document = manager.get("/openapi.json").expect(200).await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name), "{name} is there twice");
            let summary = operation["summary"].as_str();
            assert!(
                summary.is_some_and(|text| text.len() > 5),
                "{method} {path}"
            );
            for (status, response) in operation["responses"].as_object().unwrap() {
                let text = response["description"].as_str().unwrap();
                assert!(text.len() > 3, "{method} {path} {status}");
            }
        }
    }
}
